//! Questions to the catalog. Answers are in the order of time, newest last.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::de::DeserializeOwned;

use super::rows::{
    BackupRow, CheckRow, CopyRow, DrillRow, PruneRow, QuarantineRow, RecordRow, RefutationRow, RemovalRow, RunRow,
};
use super::{Catalog, CatalogError};
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::ids::{BackupId, JobName, RecordId, VaultId};

impl Catalog {
    /// The vaults that anything is known of, sorted.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn vaults(&self) -> Result<Vec<VaultId>, CatalogError> {
        let ids: Vec<String> = sqlx::query_scalar("select id from vaults order by id")
            .fetch_all(&self.pool)
            .await
            .map_err(self.failed("read from"))?;
        ids.iter()
            .map(|id| id.parse())
            .collect::<Result<_, _>>()
            .map_err(|cause: crate::domain::ids::IdError| self.failed("read from")(sqlx::Error::Decode(cause.into())))
    }

    /// The backups of a vault, those that were removed too, by the time of their commit. That and when one was removed is
    /// told by its removal; what it was by its manifest, where this host ever read that, and by the removal only where it
    /// did not: a signed manifest is a better witness of itself. Where neither says, nothing is told of it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn backups(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<BackupRow>, CatalogError> {
        let rows = sqlx::query("select * from backups where vault = ?1 and (?2 is null or job = ?2)")
            .bind(vault.as_str())
            .bind(job.map(JobName::as_str))
            .fetch_all(&self.pool)
            .await
            .map_err(self.failed("read from"))?;
        let rows: Vec<BackupRow> =
            rows.iter().map(BackupRow::from_sql).collect::<Result<_, _>>().map_err(self.failed("read from"))?;
        let place = |row: &BackupRow| (row.job.clone(), row.id.clone());
        let mut backups: BTreeMap<(JobName, BackupId), BackupRow> =
            rows.into_iter().map(|row| (place(&row), row)).collect();
        // The earliest removal counts: two hosts may have decided on one backup.
        let mut gone = BTreeSet::new();
        for removal in self.removals(vault, job).await? {
            let place = (removal.job.clone(), removal.body.backup.clone());
            if !gone.insert(place.clone()) {
                continue;
            }
            match backups.get_mut(&place) {
                Some(row) => {
                    row.retained_until = Some(removal.recorded);
                    row.removal = Some(removal.body.reason);
                }
                None => backups.extend(BackupRow::removed(&removal).map(|row| (place, row))),
            }
        }
        let mut backups: Vec<BackupRow> = backups.into_values().collect();
        backups.sort_by(|a, b| (a.committed, a.sequence, &a.id, &a.job).cmp(&(b.committed, b.sequence, &b.id, &b.job)));
        Ok(backups)
    }

    /// The runs of a vault's jobs, by the time they ended.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn runs(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<RunRow>, CatalogError> {
        let rows =
            sqlx::query("select * from runs where vault = ?1 and (?2 is null or job = ?2) order by finished, id")
                .bind(vault.as_str())
                .bind(job.map(JobName::as_str))
                .fetch_all(&self.pool)
                .await
                .map_err(self.failed("read from"))?;
        rows.iter().map(RunRow::from_sql).collect::<Result<_, _>>().map_err(self.failed("read from"))
    }

    /// The drills of a vault's jobs, by the time they ended.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn drills(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<DrillRow>, CatalogError> {
        let rows =
            sqlx::query("select * from drills where vault = ?1 and (?2 is null or job = ?2) order by finished, id")
                .bind(vault.as_str())
                .bind(job.map(JobName::as_str))
                .fetch_all(&self.pool)
                .await
                .map_err(self.failed("read from"))?;
        rows.iter().map(DrillRow::from_sql).collect::<Result<_, _>>().map_err(self.failed("read from"))
    }

    /// What was taken out of a vault, by the time of the records.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn removals(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<RemovalRow>, CatalogError> {
        self.records("removal", vault, job).await
    }

    /// What was found wrong in a vault, by the time of the records.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn refutations(
        &self,
        vault: &VaultId,
        job: Option<&JobName>,
    ) -> Result<Vec<RefutationRow>, CatalogError> {
        self.records("refutation", vault, job).await
    }

    /// What a person decided to go on without, by the time of the records.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn quarantines(
        &self,
        vault: &VaultId,
        job: Option<&JobName>,
    ) -> Result<Vec<QuarantineRow>, CatalogError> {
        self.records("quarantine", vault, job).await
    }

    /// The runs of `prune`, by the time of the records. One that says how things stand at a time which had not come when
    /// it was written does not say it here.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn prunes(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<PruneRow>, CatalogError> {
        let mut rows: Vec<PruneRow> = self.records("prune", vault, job).await?;
        for row in &mut rows {
            let knew = row.recorded.checked_add_signed(CLOCK_TOLERANCE).unwrap_or(row.recorded);
            row.body.clean_through = row.body.clean_through.filter(|through| *through <= knew);
        }
        Ok(rows)
    }

    /// The runs of `copy` out of a vault, by the time of the records.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn copies(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<CopyRow>, CatalogError> {
        self.records("copy", vault, job).await
    }

    /// The runs of `check` of a vault, by the time of the records.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn checks(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<CheckRow>, CatalogError> {
        self.records("check", vault, job).await
    }

    async fn records<Body: DeserializeOwned>(
        &self,
        kind: &'static str,
        vault: &VaultId,
        job: Option<&JobName>,
    ) -> Result<Vec<RecordRow<Body>>, CatalogError> {
        let rows = sqlx::query(
            "select * from records where vault = ?1 and kind = ?2 and (?3 is null or job = ?3) order by recorded, id",
        )
        .bind(vault.as_str())
        .bind(kind)
        .bind(job.map(JobName::as_str))
        .fetch_all(&self.pool)
        .await
        .map_err(self.failed("read from"))?;
        rows.iter().map(RecordRow::from_sql).collect::<Result<_, _>>().map_err(self.failed("read from"))
    }

    /// The records of a vault that the catalog was told of, by their folder under `records/` and their id.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn known_records(&self, vault: &VaultId) -> Result<HashSet<(String, RecordId)>, CatalogError> {
        let ids: Vec<(String, String)> = sqlx::query_as(
            "select 'runs', id from runs where vault = ?1
             union all select 'drills', id from drills where vault = ?1
             union all select case kind when 'copy' then 'copies' else kind || 's' end, id from records where vault = ?1",
        )
        .bind(vault.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(self.failed("read from"))?;
        ids.into_iter()
            .map(|(folder, id)| Ok((folder, id.parse()?)))
            .collect::<Result<_, _>>()
            .map_err(|cause: crate::domain::ids::IdError| self.failed("read from")(sqlx::Error::Decode(cause.into())))
    }

    /// What `mark` was when [`Catalog::judged`] last said so of the vault.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn judged_by(&self, vault: &VaultId) -> Result<Option<String>, CatalogError> {
        sqlx::query_scalar("select mark from judged where vault = ?1")
            .bind(vault.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(self.failed("read from"))
    }

    /// The records that were seen in a vault and not believed: their keys, and how they looked.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn unbelieved(&self, vault: &VaultId) -> Result<HashMap<String, String>, CatalogError> {
        let rows: Vec<(String, String)> = sqlx::query_as("select key, looks from unbelieved where vault = ?1")
            .bind(vault.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(self.failed("read from"))?;
        Ok(rows.into_iter().collect())
    }

    /// The highest sequence number that this host ever saw of a job in a vault. A lower one in the vault means that
    /// somebody rolled it back.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn highest_seen(&self, vault: &VaultId, job: &JobName) -> Result<Option<u64>, CatalogError> {
        let highest: Option<i64> =
            sqlx::query_scalar("select highest_sequence from seen where vault = ?1 and job = ?2")
                .bind(vault.as_str())
                .bind(job.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(self.failed("read from"))?;
        self.counted(highest)
    }

    fn counted(&self, number: Option<i64>) -> Result<Option<u64>, CatalogError> {
        number
            .map(u64::try_from)
            .transpose()
            .map_err(|cause| self.failed("read from")(sqlx::Error::Decode(cause.into())))
    }
}
