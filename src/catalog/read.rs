//! Questions to the catalog. Answers are in the order of time, newest last.

use super::rows::{BackupRow, DrillRow, RunRow};
use super::{Catalog, CatalogError};
use crate::domain::ids::{JobName, VaultId};

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

    /// The backups of a vault, by the time of their commit.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what lifeboat did not write.
    pub async fn backups(&self, vault: &VaultId, job: Option<&JobName>) -> Result<Vec<BackupRow>, CatalogError> {
        let rows = sqlx::query(
            "select * from backups where vault = ?1 and (?2 is null or job = ?2) order by committed, sequence, id",
        )
        .bind(vault.as_str())
        .bind(job.map(JobName::as_str))
        .fetch_all(&self.pool)
        .await
        .map_err(self.failed("read from"))?;
        rows.iter().map(BackupRow::from_sql).collect::<Result<_, _>>().map_err(self.failed("read from"))
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
        highest
            .map(u64::try_from)
            .transpose()
            .map_err(|cause| self.failed("read from")(sqlx::Error::Decode(cause.into())))
    }
}
