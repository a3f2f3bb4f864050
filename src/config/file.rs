//! The serde image of the text: every key as it was typed, with its place. Says nothing of what the values mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

type Text = Spanned<String>;
pub(super) type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) timezone: Option<Text>,
    pub(super) state_dir: Option<Text>,
    #[serde(default)]
    pub(super) vault: Named<VaultFile>,
    #[serde(default)]
    pub(super) job: Named<JobFile>,
    pub(super) daemon: Option<DaemonFile>,
    #[serde(default)]
    pub(super) notify: Named<NotifyFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DaemonFile {
    pub(super) listen: Option<Text>,
    pub(super) names: Option<Vec<Text>>,
    pub(super) jitter: Option<Text>,
    pub(super) jobs_at_once: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultFile {
    pub(super) url: Text,
    pub(super) recipients: Spanned<Vec<Text>>,
    pub(super) trust: Option<Text>,
    pub(super) compression: Option<Spanned<i64>>,
    pub(super) grace: Option<Text>,
    pub(super) region: Option<Text>,
    pub(super) endpoint: Option<Text>,
    pub(super) path_style: Option<Spanned<bool>>,
    pub(super) profile: Option<Text>,
    pub(super) access_key: Option<Spanned<SecretFile>>,
    pub(super) secret_key: Option<Spanned<SecretFile>>,
    pub(super) session_token: Option<Spanned<SecretFile>>,
    pub(super) ca: Option<Text>,
    pub(super) parallel_requests: Option<Spanned<i64>>,
    pub(super) bandwidth_limit: Option<Text>,
    pub(super) lock: Option<Text>,
}

/// What of a vault's keys is a bucket's.
#[derive(Debug)]
pub(super) struct S3File {
    pub(super) region: Option<Text>,
    pub(super) endpoint: Option<Text>,
    pub(super) path_style: Option<Spanned<bool>>,
    pub(super) profile: Option<Text>,
    pub(super) access_key: Option<Spanned<SecretFile>>,
    pub(super) secret_key: Option<Spanned<SecretFile>>,
    pub(super) session_token: Option<Spanned<SecretFile>>,
    pub(super) ca: Option<Text>,
    pub(super) parallel_requests: Option<Spanned<i64>>,
    pub(super) bandwidth_limit: Option<Text>,
    pub(super) lock: Option<Text>,
}

impl VaultFile {
    /// Takes out what is a bucket's.
    pub(super) fn take_s3(&mut self) -> S3File {
        S3File {
            region: self.region.take(),
            endpoint: self.endpoint.take(),
            path_style: self.path_style.take(),
            profile: self.profile.take(),
            access_key: self.access_key.take(),
            secret_key: self.secret_key.take(),
            session_token: self.session_token.take(),
            ca: self.ca.take(),
            parallel_requests: self.parallel_requests.take(),
            bandwidth_limit: self.bandwidth_limit.take(),
            lock: self.lock.take(),
        }
    }
}

impl S3File {
    /// The keys that are there, with their places.
    pub(super) fn there(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
        fn at<T>(value: &Option<Spanned<T>>) -> Option<std::ops::Range<usize>> {
            value.as_ref().map(Spanned::span)
        }
        let keys = [
            ("region", at(&self.region)),
            ("endpoint", at(&self.endpoint)),
            ("path_style", at(&self.path_style)),
            ("profile", at(&self.profile)),
            ("access_key", at(&self.access_key)),
            ("secret_key", at(&self.secret_key)),
            ("session_token", at(&self.session_token)),
            ("ca", at(&self.ca)),
            ("parallel_requests", at(&self.parallel_requests)),
            ("bandwidth_limit", at(&self.bandwidth_limit)),
            ("lock", at(&self.lock)),
        ];
        keys.into_iter().filter_map(|(name, at)| Some((name, at?))).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobFile {
    pub(super) vault: Option<Text>,
    pub(super) schedule: Text,
    pub(super) retention: Spanned<RetentionFile>,
    pub(super) prune: Option<PruneFile>,
    pub(super) check: Option<CheckedFile>,
    pub(super) copy: Option<CopyFile>,
    pub(super) objectives: Option<ObjectivesFile>,
    pub(super) source: Named<SourceFile>,
    pub(super) hooks: Option<HooksFile>,
    pub(super) notify: Option<JobNotifyFile>,
    pub(super) drill: Option<DrillFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionFile {
    pub(super) keep_at_least: Text,
    pub(super) delete_after: Text,
    pub(super) daily: Option<Spanned<i64>>,
    pub(super) weekly: Option<Spanned<i64>>,
    pub(super) last_good: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneFile {
    pub(super) schedule: Option<Text>,
}

/// `[job.X.check]`: when the vault is checked; a drill's own checks are [`CheckFile`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckedFile {
    pub(super) schedule: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyFile {
    pub(super) to: Text,
    pub(super) schedule: Option<Text>,
    pub(super) prune: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectivesFile {
    pub(super) rto: Option<Text>,
    pub(super) rpo: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HooksFile {
    pub(super) before: Option<Spanned<Vec<String>>>,
    pub(super) after: Option<Spanned<Vec<String>>>,
    pub(super) on_failure: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Text>,
}

/// The keys of all kinds of channels, and those of the heartbeat.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotifyFile {
    pub(super) kind: Option<Text>,
    pub(super) on: Option<Spanned<Vec<Text>>>,
    pub(super) jobs: Option<Spanned<Vec<Text>>>,
    pub(super) details: Option<bool>,
    pub(super) url: Option<Spanned<SecretFile>>,
    pub(super) drill_url: Option<Spanned<SecretFile>>,
    pub(super) exit_status: Option<Spanned<bool>>,
    pub(super) token: Option<Spanned<SecretFile>>,
    pub(super) template: Option<Text>,
    pub(super) chat: Option<Text>,
    pub(super) endpoint: Option<Text>,
    pub(super) server: Option<Text>,
    pub(super) tls: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) password: Option<Spanned<SecretFile>>,
    pub(super) from: Option<Text>,
    pub(super) to: Option<Spanned<Vec<Text>>>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Text>,
}

impl NotifyFile {
    /// The keys of single kinds that are there, with their places and whose they are.
    pub(super) fn there(&self) -> Vec<(&'static str, std::ops::Range<usize>, &'static str)> {
        fn at<T>(value: &Option<Spanned<T>>) -> Option<std::ops::Range<usize>> {
            value.as_ref().map(Spanned::span)
        }
        let keys = [
            ("url", at(&self.url), "webhook, slack, ntfy and the heartbeat"),
            ("drill_url", at(&self.drill_url), "the heartbeat"),
            ("exit_status", at(&self.exit_status), "the heartbeat"),
            ("token", at(&self.token), "webhook, telegram and ntfy"),
            ("template", at(&self.template), "webhook"),
            ("chat", at(&self.chat), "telegram"),
            ("endpoint", at(&self.endpoint), "telegram"),
            ("server", at(&self.server), "email"),
            ("tls", at(&self.tls), "email"),
            ("user", at(&self.user), "email"),
            ("password", at(&self.password), "email"),
            ("from", at(&self.from), "email"),
            ("to", at(&self.to), "email"),
            ("command", at(&self.command), "command"),
            ("timeout", at(&self.timeout), "command"),
        ];
        keys.into_iter().filter_map(|(name, at, whose)| Some((name, at?, whose))).collect()
    }
}

/// `[job.X.notify]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobNotifyFile {
    pub(super) heartbeat: Option<Spanned<SecretFile>>,
    pub(super) drill_heartbeat: Option<Spanned<SecretFile>>,
}

/// The keys of all kinds; the strict reading has seen to it that only those of its kind are there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceFile {
    pub(super) kind: Text,
    pub(super) paths: Option<Spanned<Vec<Text>>>,
    pub(super) exclude: Option<Vec<Text>>,
    pub(super) one_file_system: Option<bool>,
    pub(super) exclude_caches: Option<bool>,
    pub(super) path: Option<Text>,
    pub(super) url: Option<Text>,
    pub(super) databases: Option<Spanned<DatabasesFile>>,
    pub(super) exclude_databases: Option<Spanned<Vec<String>>>,
    pub(super) password: Option<Spanned<SecretFile>>,
    pub(super) exclude_data: Option<Vec<Text>>,
    pub(super) include_tables: Option<Vec<Text>>,
    pub(super) exclude_tables: Option<Vec<Text>>,
    pub(super) tools: Option<Text>,
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) max_lock_wait: Option<Text>,
    pub(super) max_snapshot: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum DatabasesFile {
    Word(String),
    Names(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrillFile {
    pub(super) schedule: Option<Text>,
    pub(super) identity: Option<Spanned<SecretFile>>,
    pub(super) trust_source: Option<bool>,
    pub(super) scratch: Option<Text>,
    pub(super) check_timeout: Option<Text>,
    pub(super) server: Option<Spanned<ServerFile>>,
    pub(super) container: Option<Spanned<ContainerFile>>,
    #[serde(default)]
    pub(super) checks: Vec<Spanned<CheckFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerFile {
    pub(super) url: Option<Text>,
    pub(super) password: Option<Spanned<SecretFile>>,
    pub(super) allow_superuser: Option<Spanned<bool>>,
    pub(super) settings: Option<Text>,
    pub(super) tools: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContainerFile {
    pub(super) image: Text,
    pub(super) program: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretFile {
    pub(super) file: Option<String>,
    pub(super) env: Option<String>,
    pub(super) credential: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckFile {
    pub(super) source: Option<Text>,
    pub(super) sql: Option<Text>,
    pub(super) freshness: Option<Text>,
    pub(super) within: Option<Text>,
    pub(super) command: Option<Spanned<Vec<String>>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::{Deserializer, Error as _, Visitor};
    use serde::forward_to_deserialize_any;

    use super::super::schema;
    use super::*;

    /// A deserializer that fails with the names of the fields that it is asked for.
    struct Ask;

    impl<'de> Deserializer<'de> for Ask {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom(""))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom(fields.join(" ")))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn fields<'de, T: Deserialize<'de> + std::fmt::Debug>() -> BTreeSet<String> {
        T::deserialize(Ask).unwrap_err().to_string().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_table_and_the_image_have_the_same_keys() {
        let images = [
            ("", fields::<ConfigFile>()),
            ("daemon", fields::<DaemonFile>()),
            ("notify.*", fields::<NotifyFile>()),
            ("job.*.notify", fields::<JobNotifyFile>()),
            ("vault.*", fields::<VaultFile>()),
            ("job.*", fields::<JobFile>()),
            ("job.*.retention", fields::<RetentionFile>()),
            ("job.*.prune", fields::<PruneFile>()),
            ("job.*.check", fields::<CheckedFile>()),
            ("job.*.copy", fields::<CopyFile>()),
            ("job.*.objectives", fields::<ObjectivesFile>()),
            ("job.*.source.*", fields::<SourceFile>()),
            ("job.*.hooks", fields::<HooksFile>()),
            ("job.*.drill", fields::<DrillFile>()),
            ("job.*.drill.server", fields::<ServerFile>()),
            ("job.*.drill.container", fields::<ContainerFile>()),
            ("job.*.drill.checks[]", fields::<CheckFile>()),
        ];
        for (table, image) in &images {
            let rows: BTreeSet<String> = schema::below(table).map(|key| key.name().to_owned()).collect();
            assert_eq!(&rows, image, "[{table}]");
        }
        let rows: usize = images.iter().map(|(_, image)| image.len()).sum();
        assert_eq!(schema::KEYS.len(), rows, "a row stands below no table");
    }

    #[test]
    fn the_schema_is_json() {
        let json = schema::schema_json();
        assert_eq!(json["keys"][0]["path"], "timezone");
        assert_eq!(json["keys"][0]["need"]["default"], "UTC");
        assert_eq!(json["keys"].as_array().unwrap().len(), schema::KEYS.len());
    }
}
