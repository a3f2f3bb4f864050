//! What `doctor` looks at on a PostgreSQL server: may the role read everything, are the tools there, is anything between.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{JobSettings, PostgresSettings, SourceKind};
use crate::domain::quantity::human_bytes;
use crate::domain::server::{ServerAddress, ServerHost, TlsMode};
use crate::error::Result;
use crate::sources::postgres::binaries::{MAJORS, Tools, Wanted};
use crate::sources::postgres::connect::{Access, ServerTrouble};
use crate::sources::postgres::examine::{Examined, examine, is_poolers_refusal};
use crate::sources::postgres::layout::{matches, quoted};
use crate::sources::postgres::trouble::{admission, words};

use super::super::access::access;
use super::super::databases;
use super::super::host::Host;
use super::Finding;

/// How long a server may take to answer everything.
const DEADLINE: Duration = Duration::from_secs(60);
/// The role that reads every table, since this major version.
const READ_ALL_SINCE: u32 = 14;
/// Where servers put their sockets if nobody says otherwise, and how these are called, a port behind it.
const SOCKET_FOLDERS: [&str; 2] = ["/run/postgresql", "/tmp"];
const SOCKET_PREFIX: &str = ".s.PGSQL.";
/// The role and the database that most servers have from the beginning.
const FIRST_ROLE: &str = "postgres";
const BACKUP_PROGRAMS: [&str; 2] = ["pg_dump", "pg_dumpall"];

/// Looks at every PostgreSQL source of a job.
pub(super) fn sources(host: &Host, job: &JobSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let job = match databases::expanded(host, job) {
        Ok(job) => job,
        Err(error) => return vec![Finding::of(&format!("job {}", job.name), &error)],
    };
    for source in &job.sources {
        if let SourceKind::Postgres(postgres) = &source.kind {
            let about = format!("job {}: source {}", job.name, source.name);
            match ask(host, postgres) {
                Err(finding) => findings.push(Finding { about, ..finding }),
                Ok(examined) => {
                    let tools = tools(host, postgres, &examined);
                    findings.extend(judge(&about, postgres, &examined));
                    findings.push(match tools {
                        Ok(tools) => judge_tools(&about, &tools, examined.major()),
                        Err(error) => Finding::of(&about, &error),
                    });
                }
            }
        }
    }
    findings
}

/// A newer pg_dump reads an older server, and writes for its own: what it leaves out because a newer server has it by itself, an older
/// one has otherwise. Of 15 and later it does not write, for one, that not everybody may make tables in the schema public.
fn judge_tools(about: &str, tools: &Tools, server_major: u32) -> Finding {
    let programs = BACKUP_PROGRAMS.join(" and ");
    let found = format!("{programs} of {}.{} are in {}", tools.major, tools.minor, tools.folder.display());
    if tools.major == server_major {
        return Finding::ok(about, found);
    }
    Finding::warning(
        about,
        format!(
            "{found}: what they write is for PostgreSQL {}, and in a server of {server_major} it may not load, or rights may not come \
             back as they were",
            tools.major
        ),
        format!("apt-get install postgresql-client-{server_major}; or restore into PostgreSQL {}", tools.major),
    )
}

/// Foreign code of a drill has no network, but sockets are files: a server of this host that lets every local user in lets
/// it in too. Only root can tell: whoever asks is let in by `peer` under his own name, and root has none there.
pub(super) fn neighbours(host: &Host, job: &JobSettings) -> Vec<Finding> {
    let drills = job.drill.as_ref().is_some_and(|drill| !drill.trust_source);
    if !drills || !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let mut folders: BTreeSet<PathBuf> = SOCKET_FOLDERS.iter().map(PathBuf::from).collect();
    folders.extend(job.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Postgres(postgres) => match &postgres.address.host {
            ServerHost::Socket(folder) => Some(folder.clone()),
            ServerHost::Name(_) => None,
        },
        _ => None,
    }));
    let open = host.runtime.block_on(open_to_all(&folders));
    open.into_iter()
        .map(|address| {
            Finding::warning(
                format!("job {}: drill", job.name),
                format!(
                    "{address} lets root in without a password, and so perhaps every user of this host; hostile code in a \
                     drill is one, and could read and change what is there"
                ),
                "in pg_hba.conf of that server: say `peer` or `scram-sha-256` instead of `trust` in lines that begin \
                 with `local`; then SELECT pg_reload_conf()",
            )
        })
        .collect()
}

/// The servers with a socket in one of these folders that let us in as their first role, with no password.
async fn open_to_all(folders: &BTreeSet<PathBuf>) -> Vec<ServerAddress> {
    // The same folder may have several names.
    let folders: BTreeSet<PathBuf> = folders.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
    let mut open = Vec::new();
    for folder in folders {
        // A folder that cannot be listed has no socket that could be found by others.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name();
            let port =
                name.to_str().and_then(|name| name.strip_prefix(SOCKET_PREFIX)).and_then(|port| port.parse().ok());
            let Some(port) = port else { continue };
            let address = ServerAddress {
                host: ServerHost::Socket(folder.clone()),
                port,
                role: FIRST_ROLE.to_owned(),
                database: FIRST_ROLE.to_owned(),
                tls: TlsMode::Disable,
                root_certificate: None,
            };
            if (Access { address: address.clone(), password: None }).connect().await.is_ok() {
                open.push(address);
            }
        }
    }
    open
}

fn ask(host: &Host, settings: &PostgresSettings) -> Result<Examined, Finding> {
    let access = access(settings).map_err(|error| Finding::of("", &error))?;
    let wanted = |schema: &str, name: &str| is_wanted(settings, schema, name);
    let asked = host.runtime.block_on(async { tokio::time::timeout(DEADLINE, examine(&access, &wanted)).await });
    match asked {
        Ok(Ok(examined)) => Ok(examined),
        Ok(Err(trouble)) => Err(refused(settings, &trouble)),
        Err(_) => Err(Finding::problem(
            "",
            format!("{} did not answer within {} s", settings.address, DEADLINE.as_secs()),
            Some("look at its load: select * from pg_stat_activity"),
        )),
    }
}

fn is_wanted(settings: &PostgresSettings, schema: &str, name: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, schema, name));
    (settings.include_tables.is_empty() || any(&settings.include_tables)) && !any(&settings.exclude_tables)
}

fn tools(host: &Host, settings: &PostgresSettings, examined: &Examined) -> Result<Tools> {
    let wanted = Wanted::AtLeast(examined.major());
    Ok(host.runtime.block_on(Tools::find(wanted, settings.tools.as_deref(), &BACKUP_PROGRAMS))?)
}

fn refused(settings: &PostgresSettings, trouble: &ServerTrouble) -> Finding {
    let address = &settings.address;
    let said = words(trouble);
    if is_poolers_refusal(trouble) {
        let message = format!("{address} is a pooler: {said}");
        return Finding::problem(
            "",
            message,
            Some("write the server's own host and port into the url: a snapshot needs it"),
        );
    }
    let message = format!("{address} does not let us read: {said}");
    if let Some(admission) = admission(address, trouble) {
        return Finding::problem("", message, Some(admission));
    }
    let hint = match trouble.state().as_deref() {
        Some("28P01" | "28000") if settings.password.is_none() => {
            format!(
                "write `password = {{ file = \"…\" }}` below the url, or let pg_hba.conf trust {}",
                quoted(&address.role)
            )
        }
        Some("28P01" | "28000") => {
            format!(
                "psql {}: see that password and pg_hba.conf let {} in",
                shell(&address.to_string()),
                quoted(&address.role)
            )
        }
        Some("3D000") => format!(
            "psql -l {}: shows the databases that there are",
            shell(&address.with_database("postgres").to_string())
        ),
        _ => format!("psql {}: see that the server runs and listens there", shell(&address.to_string())),
    };
    Finding::problem("", message, Some(hint))
}

fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn judge(about: &str, settings: &PostgresSettings, examined: &Examined) -> Vec<Finding> {
    let role = quoted(&settings.address.role);
    let major = examined.major();
    let mut findings = vec![Finding::ok(
        about,
        format!(
            "{} answers: PostgreSQL {}, {} tables, {}",
            settings.address,
            examined.version,
            examined.tables,
            human_bytes(examined.size_bytes)
        ),
    )];
    if !MAJORS.contains(&major) {
        let (least, most) = (MAJORS.start(), MAJORS.end());
        findings.push(Finding::problem(
            about,
            format!("this lifeboat knows PostgreSQL {least} to {most}, and this is {major}"),
            Some(if major < *least { "upgrade the server" } else { "upgrade lifeboat" }),
        ));
    }
    if examined.pooled {
        findings.push(Finding::problem(
            about,
            "a pooler gives each statement another server process: no snapshot holds through it".to_owned(),
            Some("write the server's own host and port into the url, or let the pooler pool sessions for this role"),
        ));
    }
    if let Some(standby) = &examined.standby {
        let message = format!(
            "it is a standby: the recovery point is its last replayed commit, and a backup that takes longer than \
             max_standby_streaming_delay ({}) may be cancelled by what it replays",
            standby.max_delay
        );
        findings.push(if standby.feedback || standby.max_delay == "-1" {
            Finding::ok(
                about,
                format!("{message}; hot_standby_feedback is {}", if standby.feedback { "on" } else { "off" }),
            )
        } else {
            Finding::warning(
                about,
                message,
                "on the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()",
            )
        });
    }
    if examined.unreadable.count > 0 {
        findings.push(Finding::problem(
            about,
            format!(
                "{} may not read {}: {}",
                settings.address.role,
                counted(examined.unreadable.count),
                examined.unreadable
            ),
            Some(format!(
                "as a superuser in this database: {}",
                read_grants(major, &role, &examined.unreadable_schemas)
            )),
        ));
    }
    if examined.filtered.count > 0 {
        findings.push(Finding::problem(
            about,
            format!("row-level security hides rows of {} from {}", examined.filtered, settings.address.role),
            Some(format!("as a superuser: ALTER ROLE {role} BYPASSRLS")),
        ));
    }
    if examined.unreadable_large_objects > 0 {
        findings.push(Finding::problem(
            about,
            format!("{} may not read {} large objects", settings.address.role, examined.unreadable_large_objects),
            Some(format!(
                "as a superuser, in psql: SELECT format('GRANT SELECT ON LARGE OBJECT %s TO {}', oid) FROM pg_largeobject_metadata \\gexec",
                role.replace('\'', "''").replace('%', "%%")
            )),
        ));
    }
    if examined.unreadable.count == 0 && examined.filtered.count == 0 && examined.unreadable_large_objects == 0 {
        findings.push(Finding::ok(
            about,
            format!("{} may read every table, sequence and large object", settings.address.role),
        ));
    }
    if !examined.role_passwords {
        findings.push(Finding::warning(
            about,
            format!("{} may not read the roles' passwords: a restore makes the roles without", settings.address.role),
            format!("set them after a restore; or, where that is wanted: GRANT SELECT ON pg_authid TO {role}"),
        ));
    }
    findings
}

/// What to type so that a role may read everything that there is, and will be.
fn read_grants(major: u32, role: &str, schemas: &[String]) -> String {
    if major >= READ_ALL_SINCE {
        return format!("GRANT pg_read_all_data TO {role}");
    }
    let each = schemas.iter().map(|schema| {
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}; \
             GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON SEQUENCES TO {role}"
        )
    });
    each.collect::<Vec<_>>().join("; ")
}

fn counted(count: u64) -> String {
    if count == 1 { "1 table or sequence".to_owned() } else { format!("{count} tables and sequences") }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::config::Settings;
    use crate::sources::postgres::examine::{Names, Standby};
    use crate::sources::postgres::test_server::TestServer;

    fn settings(lines: &str) -> PostgresSettings {
        let text = format!(
            "[vault.main]\nurl = \"/v\"\nrecipients = [\"age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa\"]\n\
             [job.shop]\nschedule = \"@daily\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
             [job.shop.source.db]\nkind = \"postgres\"\nurl = \"postgres://backup@db/shop\"\n{lines}\n"
        );
        let settings = Settings::parse(&text, std::path::Path::new("/etc/lifeboat.toml")).unwrap();
        match &settings.jobs.values().next().unwrap().sources[0].kind {
            SourceKind::Postgres(postgres) => (**postgres).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn good() -> Examined {
        Examined {
            version: "15.18".to_owned(),
            version_number: 150_018,
            standby: None,
            pooled: false,
            role_passwords: true,
            unreadable: Names::default(),
            unreadable_schemas: Vec::new(),
            filtered: Names::default(),
            unreadable_large_objects: 0,
            tables: 3,
            size_bytes: 1 << 20,
        }
    }

    fn worst(examined: &Examined) -> (Grade, String, String) {
        let findings = judge("job shop", &settings(""), examined);
        let worst = findings.into_iter().find(|finding| finding.grade != Grade::Ok).unwrap();
        (worst.grade, worst.message, worst.hint.unwrap())
    }

    #[test]
    fn a_good_server_has_nothing_to_complain_of() {
        assert!(judge("job shop", &settings(""), &good()).iter().all(|finding| finding.grade == Grade::Ok));
    }

    #[test]
    fn each_lack_comes_with_what_to_type() {
        let names = |name: &str| Names { first: vec![name.to_owned()], count: 1 };
        let lacking = Examined {
            unreadable: names("public.users"),
            unreadable_schemas: vec!["public".into(), "\"My Shop\"".into()],
            ..good()
        };
        let (grade, message, hint) = worst(&lacking);
        assert_eq!(grade, Grade::Problem);
        assert_eq!(message, "backup may not read 1 table or sequence: public.users");
        assert_eq!(hint, "as a superuser in this database: GRANT pg_read_all_data TO \"backup\"");
        let (_, _, hint) = worst(&Examined { version_number: 130_022, ..lacking });
        assert!(hint.contains("GRANT USAGE ON SCHEMA \"My Shop\" TO \"backup\"; GRANT SELECT ON ALL TABLES"), "{hint}");

        let (_, message, hint) = worst(&Examined { filtered: names("public.secret"), ..good() });
        assert!(message.contains("row-level security hides rows of public.secret"), "{message}");
        assert!(hint.ends_with("ALTER ROLE \"backup\" BYPASSRLS"));
        let (_, _, hint) = worst(&Examined { unreadable_large_objects: 2, ..good() });
        assert!(hint.contains("GRANT SELECT ON LARGE OBJECT %s TO \"backup\""), "{hint}");
        let (grade, _, _) = worst(&Examined { role_passwords: false, ..good() });
        assert_eq!(grade, Grade::Warning);
        let (_, message, _) = worst(&Examined { pooled: true, ..good() });
        assert!(message.contains("pooler"));
        let (_, message, _) = worst(&Examined { version_number: 110_000, ..good() });
        assert!(message.contains("12 to 18"));
        let standby = Standby { max_delay: "30s".into(), feedback: false };
        let (grade, _, hint) = worst(&Examined { standby: Some(standby), ..good() });
        assert!(grade == Grade::Warning && hint.contains("hot_standby_feedback = on"));
    }

    #[tokio::test]
    async fn a_server_that_trusts_everybody_is_found_by_its_socket() {
        let server = TestServer::start_now();
        let address = server.access("postgres", "postgres").address;
        let folders = BTreeSet::from([server.folder().to_owned(), server.folder().join("data")]);
        let found = open_to_all(&folders).await;
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].host, found[0].port), (&address.host, address.port));
        std::fs::write(server.folder().join("data/pg_hba.conf"), "local all all peer\n").unwrap();
        server.sql("postgres", "SELECT pg_reload_conf()");
        // The server reads it when it comes to it.
        while !open_to_all(&folders).await.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn programs_of_a_newer_version_are_warned_of() {
        let tools = |major| Tools { folder: "/x".into(), major, minor: 3 };
        let own = judge_tools("job shop", &tools(14), 14);
        assert_eq!((own.grade, own.message.as_str()), (Grade::Ok, "pg_dump and pg_dumpall of 14.3 are in /x"));
        let newer = judge_tools("job shop", &tools(16), 14);
        assert_eq!(newer.grade, Grade::Warning);
        assert!(newer.message.contains("is for PostgreSQL 16, and in a server of 14"), "{newer:?}");
        assert!(newer.hint.unwrap().contains("postgresql-client-14"));
    }

    #[test]
    fn what_the_config_leaves_out_need_not_be_readable() {
        let settings = settings("include_tables = [\"public.*\"]\nexclude_tables = [\"*.logs\"]");
        assert!(is_wanted(&settings, "public", "users"));
        assert!(!is_wanted(&settings, "public", "logs") && !is_wanted(&settings, "audit", "users"));
    }
}
