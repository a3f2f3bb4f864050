//! What the catalog is told. Each statement is an upsert by id: said twice is said once.

use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::rows::{BackupRow, json_text, moment_text, word_text};
use super::{Catalog, CatalogError};
use crate::domain::ids::{BackupId, JobName, ManifestHash, RecordId, VaultId};
use crate::domain::manifest::Manifest;
use crate::domain::record::{DrillRecord, Record, RecordBody, RunRecord};

/// A manifest or record that the catalog cannot hold.
#[derive(Debug)]
pub struct PassedOver {
    /// `backup 0123…`, `record 0123…`.
    pub what: String,
    /// Why.
    pub why: CatalogError,
}

impl Catalog {
    /// Remembers a committed backup.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn record_backup(&self, manifest: &Manifest, hash: ManifestHash) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        self.put_vault(&mut transaction, &manifest.vault).await?;
        self.put_backup(&mut transaction, &BackupRow::of(manifest, hash)).await?;
        transaction.commit().await.map_err(self.failed("write to"))
    }

    /// Remembers a record. Of lists of condemned objects nothing is remembered: they are the vault's own business and
    /// gone from it before long.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn record(&self, record: &Record) -> Result<(), CatalogError> {
        self.record_all(std::slice::from_ref(record)).await
    }

    /// Remembers records, all or none of them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn record_all(&self, records: &[Record]) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        for record in records {
            self.put_vault(&mut transaction, &record.vault).await?;
            self.put_record(&mut transaction, record).await?;
        }
        transaction.commit().await.map_err(self.failed("write to"))
    }

    /// Forgets what was known of a vault and takes these instead, in one transaction: afterwards the catalog says of
    /// the vault exactly what its manifests and records say. Other vaults, and what this host has seen, stay. The answer is
    /// what it had to pass over, because of numbers that no honest host writes.
    ///
    /// # Errors
    /// When the file cannot be written, or something of another vault is among them; nothing is changed then.
    pub async fn replace(
        &self,
        vault: &VaultId,
        manifests: &[(Manifest, ManifestHash)],
        records: &[Record],
    ) -> Result<Vec<PassedOver>, CatalogError> {
        let other = |what: String, found: &VaultId| CatalogError::OtherVault {
            what,
            expected: vault.clone(),
            found: found.clone(),
        };
        if let Some((manifest, _)) = manifests.iter().find(|(manifest, _)| manifest.vault != *vault) {
            return Err(other(format!("backup {}", manifest.id), &manifest.vault));
        }
        if let Some(record) = records.iter().find(|record| record.vault != *vault) {
            return Err(other(format!("record {}", record.id), &record.vault));
        }
        let mut transaction = self.begin().await?;
        for forget in [
            "delete from backups where vault = ?1",
            "delete from runs where vault = ?1",
            "delete from drills where vault = ?1",
            "delete from records where vault = ?1",
        ] {
            sqlx::query(forget)
                .bind(vault.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(self.failed("write to"))?;
        }
        self.put_vault(&mut transaction, vault).await?;
        let mut passed_over = Vec::new();
        let mut pass_over = |what: String, put| match put {
            Err(why @ CatalogError::TooLarge { .. }) => {
                passed_over.push(PassedOver { what, why });
                Ok(())
            }
            put => put,
        };
        for (manifest, hash) in manifests {
            let put = self.put_backup(&mut transaction, &BackupRow::of(manifest, *hash)).await;
            pass_over(format!("backup {}", manifest.id), put)?;
        }
        for record in records {
            let put = self.put_record(&mut transaction, record).await;
            pass_over(format!("record {}", record.id), put)?;
        }
        transaction.commit().await.map_err(self.failed("write to"))?;
        Ok(passed_over)
    }

    /// Forgets backups of a job that whoever signed them had no right to sign: as if they had never been.
    ///
    /// # Errors
    /// When the file cannot be written; all are forgotten or none.
    pub async fn forget_backups(&self, vault: &VaultId, places: &[(JobName, BackupId)]) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        for (job, id) in places {
            sqlx::query("delete from backups where vault = ?1 and job = ?2 and id = ?3")
                .bind(vault.as_str())
                .bind(job.as_str())
                .bind(id.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(self.failed("write to"))?;
        }
        transaction.commit().await.map_err(self.failed("write to"))
    }

    /// Forgets a record, by its folder under `records/` and its id: it is not believed any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn forget_record(&self, vault: &VaultId, folder: &str, id: &RecordId) -> Result<(), CatalogError> {
        let forget = match folder {
            "runs" => "delete from runs where vault = ?1 and id = ?2 and ?3 = 'runs'",
            "drills" => "delete from drills where vault = ?1 and id = ?2 and ?3 = 'drills'",
            "copies" => "delete from records where vault = ?1 and id = ?2 and kind = 'copy' and ?3 = 'copies'",
            _ => "delete from records where vault = ?1 and id = ?2 and kind || 's' = ?3",
        };
        sqlx::query(forget)
            .bind(vault.as_str())
            .bind(id.as_str())
            .bind(folder)
            .execute(&self.pool)
            .await
            .map_err(self.failed("write to"))?;
        Ok(())
    }

    /// Remembers that every record of a vault was judged by `mark`, which stands for whom to believe and how; what was
    /// remembered with another mark as not believed may be believed by this one, and is forgotten.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn judged(&self, vault: &VaultId, mark: &str) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        for statement in [
            "delete from unbelieved where vault = ?1
                and not exists (select 1 from judged where judged.vault = ?1 and mark = ?2)",
            "insert into judged (vault, mark) values (?1, ?2) on conflict (vault) do update set mark = excluded.mark",
        ] {
            sqlx::query(statement)
                .bind(vault.as_str())
                .bind(mark)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed("write to"))?;
        }
        transaction.commit().await.map_err(self.failed("write to"))
    }

    /// Remembers records that were not believed: their keys, and how they looked.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn did_not_believe(&self, vault: &VaultId, records: &[(String, String)]) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        for (key, looks) in records {
            sqlx::query("insert or replace into unbelieved (vault, key, looks) values (?1, ?2, ?3)")
                .bind(vault.as_str())
                .bind(key)
                .bind(looks)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed("write to"))?;
        }
        transaction.commit().await.map_err(self.failed("write to"))
    }

    /// Remembers that this host saw a sequence number of a job; a lower one than before changes nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn saw(&self, vault: &VaultId, job: &JobName, sequence: u64) -> Result<(), CatalogError> {
        sqlx::query(
            "insert into seen (vault, job, highest_sequence) values (?1, ?2, ?3)
             on conflict (vault, job) do update set highest_sequence = max(highest_sequence, excluded.highest_sequence)",
        )
        .bind(vault.as_str())
        .bind(job.as_str())
        .bind(integer("a sequence number", sequence)?)
        .execute(&self.pool)
        .await
        .map_err(self.failed("write to"))?;
        Ok(())
    }

    /// A transaction that holds the right to write from its start: one that only asks for it at its first write can
    /// be refused at once, whatever the timeout, if another one wrote meanwhile.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        self.pool.begin_with("begin immediate").await.map_err(self.failed("write to"))
    }

    async fn put_vault(&self, connection: &mut SqliteConnection, vault: &VaultId) -> Result<(), CatalogError> {
        sqlx::query("insert into vaults (id) values (?1) on conflict (id) do nothing")
            .bind(vault.as_str())
            .execute(connection)
            .await
            .map_err(self.failed("write to"))?;
        Ok(())
    }

    async fn put_backup(&self, connection: &mut SqliteConnection, row: &BackupRow) -> Result<(), CatalogError> {
        sqlx::query(
            "insert or replace into backups
                (vault, id, job, sequence, completeness, host, tool, started, committed, recovery_point,
                 recipient_set, recipients, previous, manifest_hash, sources)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )
        .bind(row.vault.as_str())
        .bind(row.id.as_str())
        .bind(row.job.as_str())
        .bind(integer("a backup's sequence number", row.sequence)?)
        .bind(word_text(&row.completeness))
        .bind(row.host.as_str())
        .bind(row.tool.as_str())
        .bind(moment_text(row.started))
        .bind(moment_text(row.committed))
        .bind(moment_text(row.recovery_point))
        .bind(row.recipient_set.as_str())
        .bind(json_text(&row.recipients))
        .bind(row.previous.map(|hash| hash.to_string()))
        .bind(row.manifest_hash.to_string())
        .bind(json_text(&row.sources))
        .execute(connection)
        .await
        .map_err(self.failed("write to"))?;
        Ok(())
    }

    async fn put_record(&self, connection: &mut SqliteConnection, record: &Record) -> Result<(), CatalogError> {
        match &record.body {
            RecordBody::Run(run) => self.put_run(connection, record, run).await,
            RecordBody::Drill(drill) => self.put_drill(connection, record, drill).await,
            RecordBody::Removal(removal) => self.put_whole(connection, record, json_text(removal)).await,
            RecordBody::Refutation(refutation) => self.put_whole(connection, record, json_text(refutation)).await,
            RecordBody::Quarantine(quarantine) => self.put_whole(connection, record, json_text(quarantine)).await,
            RecordBody::Prune(prune) => self.put_whole(connection, record, json_text(prune)).await,
            RecordBody::Copy(copy) => self.put_whole(connection, record, json_text(copy)).await,
            RecordBody::Check(check) => self.put_whole(connection, record, json_text(check)).await,
            RecordBody::Condemned(_) => Ok(()),
        }
    }

    async fn put_whole(
        &self,
        connection: &mut SqliteConnection,
        record: &Record,
        body: String,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "insert or replace into records (vault, kind, id, job, host, tool, recorded, details, body)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(record.vault.as_str())
        .bind(record.body.type_name())
        .bind(record.id.as_str())
        .bind(record.job.as_str())
        .bind(record.host.as_str())
        .bind(record.tool.as_str())
        .bind(moment_text(record.recorded))
        .bind(record.details.map(|object| object.to_string()))
        .bind(body)
        .execute(connection)
        .await
        .map_err(self.failed("write to"))?;
        Ok(())
    }

    async fn put_run(
        &self,
        connection: &mut SqliteConnection,
        record: &Record,
        run: &RunRecord,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "insert or replace into runs
                (vault, id, job, host, tool, recorded, details, outcome, started, finished, duration_seconds, backup,
                 logical_bytes, stored_bytes, new_bytes, errors, error_code)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )
        .bind(record.vault.as_str())
        .bind(record.id.as_str())
        .bind(record.job.as_str())
        .bind(record.host.as_str())
        .bind(record.tool.as_str())
        .bind(moment_text(record.recorded))
        .bind(record.details.map(|object| object.to_string()))
        .bind(word_text(&run.outcome))
        .bind(moment_text(run.started))
        .bind(moment_text(run.finished))
        .bind(run.duration_seconds)
        .bind(run.backup.as_ref().map(BackupId::as_str))
        .bind(integer("a run's logical_bytes", run.logical_bytes)?)
        .bind(integer("a run's stored_bytes", run.stored_bytes)?)
        .bind(integer("a run's new_bytes", run.new_bytes)?)
        .bind(integer("a run's count of errors", run.errors)?)
        .bind(run.error_code.as_deref())
        .execute(connection)
        .await
        .map_err(self.failed("write to"))?;
        Ok(())
    }

    async fn put_drill(
        &self,
        connection: &mut SqliteConnection,
        record: &Record,
        drill: &DrillRecord,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "insert or replace into drills
                (vault, id, job, host, tool, recorded, details, outcome, backup, recovery_point, started, finished,
                 rto_seconds, rto_objective_seconds, rto_met, rpo_seconds, phases, checks_passed, checks_failed,
                 refutes_backup, error_code, restored_bytes, environment)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                 ?22, ?23)",
        )
        .bind(record.vault.as_str())
        .bind(record.id.as_str())
        .bind(record.job.as_str())
        .bind(record.host.as_str())
        .bind(record.tool.as_str())
        .bind(moment_text(record.recorded))
        .bind(record.details.map(|object| object.to_string()))
        .bind(word_text(&drill.outcome))
        .bind(drill.backup.as_ref().map(BackupId::as_str))
        .bind(drill.recovery_point.map(moment_text))
        .bind(moment_text(drill.started))
        .bind(moment_text(drill.finished))
        .bind(drill.rto_seconds)
        .bind(drill.rto_objective_seconds)
        .bind(drill.rto_met)
        .bind(drill.rpo_seconds)
        .bind(json_text(&drill.phases))
        .bind(integer("a drill's passed checks", drill.checks_passed)?)
        .bind(integer("a drill's failed checks", drill.checks_failed)?)
        .bind(drill.refutes_backup)
        .bind(drill.error_code.as_deref())
        .bind(integer("a drill's restored_bytes", drill.restored_bytes)?)
        .bind(json_text(&drill.environment))
        .execute(connection)
        .await
        .map_err(self.failed("write to"))?;
        Ok(())
    }
}

/// SQLite's integers end at 2^63.
fn integer(what: &'static str, number: u64) -> Result<i64, CatalogError> {
    i64::try_from(number).map_err(|_| CatalogError::TooLarge { what, number })
}
