//! The keys of kind = "postgres" and of a drill's server, right and wrong.

use super::*;
use crate::config::settings::{DEFAULT_CONNECTIONS, DEFAULT_MAX_LOCK_WAIT, DEFAULT_MAX_SNAPSHOT};
use crate::domain::server::{ServerHost, TlsMode};

const URL: &str = "url = \"postgres://backup@db.internal/shop\"";

fn source(lines: &str) -> String {
    job(&format!("{SCHEDULE}[job.shop.source.db]\nkind = \"postgres\"\n{lines}\n"))
}

fn settings(text: &str) -> JobSettings {
    parse(text).unwrap().jobs.remove(&"shop".parse().unwrap()).unwrap()
}

fn postgres(job: &JobSettings) -> &PostgresSettings {
    match &job.sources[0].kind {
        SourceKind::Postgres(postgres) => postgres,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_url_is_enough() {
    let job = settings(&source(URL));
    let postgres = postgres(&job);
    assert_eq!(postgres.address.to_string(), "postgres://backup@db.internal/shop");
    assert_eq!(postgres.password, None);
    assert_eq!(postgres.connections, DEFAULT_CONNECTIONS);
    assert_eq!((postgres.max_lock_wait, postgres.max_snapshot), (DEFAULT_MAX_LOCK_WAIT, DEFAULT_MAX_SNAPSHOT));
    assert!(postgres.include_tables.is_empty() && postgres.exclude_tables.is_empty());
    assert!(job.sources[0].kind.is_database());
}

#[test]
fn every_key_is_read() {
    let text = source(
        r#"url = "postgres://o%27neil@localhost:5433/a%20b?host=/run/postgresql&sslmode=verify-full&sslrootcert=/etc/ca.pem"
password = { file = "pg.pass" }
include_tables = ["public.*"]
exclude_tables = ["*.tmp_*"]
exclude_data = ["public.sessions"]
tools = "pg/bin"
connections = 8
max_lock_wait = "5s"
max_snapshot = "2h"
[job.shop.drill]
server = { settings = "production", tools = "/opt/pg/bin" }
checks = [{ source = "db", sql = "select 1" }]"#,
    );
    let job = settings(&text);
    let postgres = postgres(&job);
    assert_eq!((postgres.address.role.as_str(), postgres.address.database.as_str()), ("o'neil", "a b"));
    assert_eq!(postgres.address.host, ServerHost::Socket("/run/postgresql".into()));
    assert_eq!((postgres.address.port, postgres.address.tls), (5433, TlsMode::VerifyFull));
    assert_eq!(postgres.password, Some(Secret::File("/etc/lifeboat/pg.pass".into())));
    assert_eq!(postgres.exclude_data, ["public.sessions"]);
    assert_eq!(postgres.tools.as_deref(), Some(Path::new("/etc/lifeboat/pg/bin")));
    assert_eq!(postgres.connections, 8);
    assert_eq!(postgres.max_lock_wait, Duration::from_secs(5));
    let drill = job.drill.as_ref().unwrap();
    assert_eq!(drill.server.settings, ServerSettings::Production);
    assert_eq!(drill.server.tools.as_deref(), Some(Path::new("/opt/pg/bin")));

    let sealed = parse(&text).unwrap().without_secrets(&job.name);
    let sealed = &sealed["job"];
    assert_eq!(sealed["sources"][0]["password"]["file"], "/etc/lifeboat/pg.pass");
    assert_eq!(sealed["sources"][0]["max_snapshot"], "2h");
    assert_eq!(sealed["drill"]["server"]["settings"], "production");
}

#[test]
fn without_a_word_on_it_a_drills_server_is_fast() {
    let job = settings(&source(&format!("{URL}\n[job.shop.drill]")));
    assert_eq!(job.drill.unwrap().server, ScratchServer::default());
    assert_eq!(ServerSettings::default().word(), "drill");
}

#[test]
fn a_source_may_be_several_databases() {
    let text = source(&format!(
        "{URL}\ndatabases = \"all\"\nexclude_databases = [\"postgres\"]\n[job.shop.drill]\n\
         checks = [{{ source = \"db-shop\", sql = \"select 1\" }}]"
    ));
    let job = settings(&text);
    assert_eq!(postgres(&job).databases, Databases::All { except: vec!["postgres".to_owned()] });
    let stands = |job: &JobSettings, name: &str| job.sources[0].stands_for(&name.parse().unwrap());
    assert!(stands(&job, "db-shop") && stands(&job, "db-blog") && !stands(&job, "db"));
    let shown = &parse(&text).unwrap().without_secrets(&job.name)["job"]["sources"][0];
    assert_eq!((&shown["databases"], &shown["exclude_databases"][0]), (&"all".into(), &"postgres".into()));

    let job = settings(&source(&format!("{URL}\ndatabases = [\"shop\", \"My Blog\"]")));
    assert_eq!(postgres(&job).databases, Databases::These(vec!["shop".to_owned(), "My Blog".to_owned()]));
    assert!(stands(&job, "db-shop") && !stands(&job, "db-blog") && !stands(&job, "db"));
    assert!(stands(&settings(&source(URL)), "db"));
}

#[test]
fn a_drill_may_have_a_server_that_is_there_or_a_container() {
    let drill = |lines: &str| {
        let text = source(&format!("{URL}\n[job.shop.drill]\n{lines}"));
        (settings(&text).drill.unwrap().server, parse(&text).unwrap())
    };
    let (server, settings) =
        drill("server = { url = \"postgres://drill@spare/postgres\", password = { env = \"PG\" }, tools = \"pg\" }");
    let ServerGround::Existing(existing) = &server.ground else { panic!("{server:?}") };
    assert_eq!(existing.address.to_string(), "postgres://drill@spare/postgres");
    assert_eq!((&existing.password, existing.role), (&Some(Secret::Env("PG".into())), DrillRole::Ordinary));
    assert_eq!(server.tools.as_deref(), Some(Path::new("/etc/lifeboat/pg")));
    let shown = &settings.without_secrets(&"shop".parse().unwrap())["job"]["drill"];
    assert_eq!(shown["server"]["url"], "postgres://drill@spare/postgres");
    assert_eq!((&shown["server"]["allow_superuser"], &shown["container"]), (&false.into(), &serde_json::Value::Null));
    assert!(check(&settings, DateTime::UNIX_EPOCH, &BTreeMap::new()).iter().all(|it| !it.key.contains("drill.server")));

    let (server, settings) =
        drill("server = { url = \"postgres://drill@DB.internal/postgres\", allow_superuser = true }");
    assert!(matches!(&server.ground, ServerGround::Existing(existing) if existing.role == DrillRole::Any));
    let found = check(&settings, DateTime::UNIX_EPOCH, &BTreeMap::new());
    for (key, fragment) in [("url", "source db of job shop lives on"), ("allow_superuser", "can take over this server")]
    {
        let key = format!("job.shop.drill.server.{key}");
        assert!(found.iter().any(|it| it.key == key && it.message.contains(fragment)), "{found:?}");
    }

    let (server, settings) = drill(
        "server = { settings = \"production\" }\ncontainer = { image = \"postgres:15\", program = \"./docker\" }",
    );
    let program = Some("/etc/lifeboat/docker".to_owned());
    assert_eq!(server.ground, ServerGround::Container(ContainerSettings { image: "postgres:15".into(), program }));
    assert_eq!(server.settings, ServerSettings::Production);
    let shown = &settings.without_secrets(&"shop".parse().unwrap())["job"]["drill"];
    assert_eq!(
        (&shown["server"]["settings"], &shown["container"]["image"]),
        (&"production".into(), &"postgres:15".into())
    );
    let (server, _) = drill("container = { image = \"postgres:15\" }");
    assert_eq!(
        server.ground,
        ServerGround::Container(ContainerSettings { image: "postgres:15".into(), program: None })
    );
}

#[test]
fn each_mistake_says_what_is_right() {
    let drill = |line: &str| source(&format!("{URL}\n[job.shop.drill]\n{line}"));
    let cases = [
        (source(""), "has no `url`"),
        (source("url = \"/srv/shop\""), "write \"postgres://role@host/database\""),
        (source("url = \"postgres://db.internal/shop\""), "which role logs in"),
        (source("url = \"postgres://backup@db.internal\""), "does not name a database"),
        (source("url = \"postgres://backup@/shop\""), "names no host"),
        (source("url = \"postgres://backup@db/shop?sslmode=on\""), "sslmode is one of disable"),
        (source("url = \"postgres://backup@db/shop?connect_timeout=3\""), "parameter \"connect_timeout\" is not known"),
        (source(&format!("{URL}\nconnections = 0")), "`connections` is a number from 1 to 32"),
        (source(&format!("{URL}\nconnections = 33")), "`connections` is a number from 1 to 32"),
        (source(&format!("{URL}\nmax_lock_wait = \"0s\"")), "`max_lock_wait` of nothing"),
        (source(&format!("{URL}\nmax_snapshot = 3")), "`max_snapshot` needs a unit"),
        (source(&format!("{URL}\nexclude_data = [\"logs\"]")), "a pattern of tables has a schema"),
        (source(&format!("{URL}\nexclude = [\"a.b\"]")), "`exclude` belongs to kind = \"files\""),
        (source(&format!("{URL}\ntables = [\"a.b\"]")), "did you mean `include_tables`?"),
        (source(&format!("{URL}\nport = 5433")), "unknown key `port`"),
        (source(&format!("{URL}\ndatabases = \"some\"")), "`databases` is \"all\", or a list of names"),
        (source(&format!("{URL}\ndatabases = []")), "`databases` is \"all\", or a list of names"),
        (source(&format!("{URL}\ndatabases = [1]")), "`databases` is \"all\", or a list of texts"),
        (source(&format!("{URL}\ndatabases = true")), "`databases` is \"all\", or a list of texts"),
        (source(&format!("{URL}\ndatabases = [\"a\", \"b\", \"a\"]")), "names \"a\" twice"),
        (source(&format!("{URL}\ndatabases = [\"lifeboat_drill_1\"]")), "are drills' own"),
        (source(&format!("{URL}\nexclude_databases = [\"a\"]")), "`exclude_databases` belongs to databases = \"all\""),
        (
            source(&format!("{URL}\ndatabases = \"all\"\n[job.shop.source.db_old]\nkind = \"sqlite\"\npath = \"/x\"")),
            "`db_old` could be a database of `db`",
        ),
        (
            source(&format!("{URL}\ndatabases = \"all\""))
                .replace("source.db]", &format!("source.{}]", "d".repeat(30))),
            "a name of at most 29 letters",
        ),
        (
            source(&format!(
                "{URL}\ndatabases = \"all\"\n[job.shop.drill]\nchecks = [{{ source = \"db\", sql = \"select 1\" }}]"
            )),
            "source db is several databases: name one of them, such as \"db-shop\"; this job's databases: db-",
        ),
        (
            source(&format!(
                "{URL}\ndatabases = [\"shop\"]\n[job.shop.drill]\nchecks = [{{ source = \"db-blog\", sql = \"select 1\" }}]"
            )),
            "this job has no source \"db-blog\"",
        ),
        (drill("server = { settings = \"fast\" }"), "`settings` is \"drill\" or \"production\""),
        (drill("server = { url = \"postgres://b/c\" }"), "which role logs in"),
        (drill("server = { url = \"postgres://a@b/c\", settings = \"drill\" }"), "one that is there has its own"),
        (drill("server = { url = \"postgres://a@b/lifeboat_drill_1\" }"), "are drills' own, and are dropped"),
        (source("url = \"postgres://backup@db/lifeboat_drill_x\""), "are drills' own, and are dropped"),
        (drill("server = { password = { env = \"X\" } }"), "`password` is of a server that is there"),
        (drill("server = { allow_superuser = true }"), "`allow_superuser` is of a server that is there"),
        (drill("server = { allow_superusers = true }"), "did you mean `allow_superuser`?"),
        (drill("server = { url = \"postgres://a@b/c\" }\ncontainer = { image = \"x\" }"), "a drill has one server"),
        (drill("container = { }"), "has no `image`"),
        (drill("container = { image = \"\" }"), "`image` names an image"),
        (drill("container = { image = \"--privileged\" }"), "`image` names an image"),
        (drill("container = { image = \"postgres:15\", program = \"lxc\" }"), "`program` is \"docker\" or \"podman\""),
        (drill("container = \"postgres:15\""), "`container` is a table"),
        (drill("server = \"drill\""), "`server` is a table"),
        (
            job(&format!("{SCHEDULE}{SQLITE}[job.shop.drill]\nserver = {{ settings = \"drill\" }}\n")),
            "no source of kind \"postgres\"",
        ),
        (
            job(&format!("{SCHEDULE}{SQLITE}[job.shop.drill]\ncontainer = {{ image = \"postgres:15\" }}\n")),
            "no source of kind \"postgres\"",
        ),
    ];
    for (text, fragment) in cases {
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.message.contains(fragment)), "{fragment:?} is not in {found:#?}");
    }
}

#[test]
fn a_password_is_refused_and_never_shown() {
    let cases = [
        (source("url = \"postgres://backup:hunter2@db/shop\""), "a password stands in the url"),
        (source("url = \"postgres://backup@db/shop?password=hunter2\""), "a password stands in the url"),
        (source("url = \"postgres://backup:hunter2\""), "no address of a database"),
        (source("url = \"postgres://backup:hunter2@d b/shop\""), "no address of a database"),
        (source(&format!("{URL}\npassword = \"hunter2\"")), "`password` must not stand in the config"),
        (
            source(&format!("{URL}\n[job.shop.drill]\nserver = {{ url = \"postgres://a:hunter2@b/c\" }}")),
            "a password stands in the url",
        ),
        (
            source(&format!("{URL}\n[job.shop.drill.server]\nurl = \"postgres://a@b/c\"\npassword = \"hunter2\"")),
            "`password` must not stand in the config",
        ),
        (source(&format!("{URL}\npassword = {{ value = \"hunter2\" }}")), "no such place"),
        (source("uri = \"postgres://backup:hunter2@db/shop\""), "did you mean `url`?"),
        (source("uri = \"postgres://backup:hun@ter2@db/shop\""), "did you mean `url`?"),
        (source("uri = \"postgres://backup@db/shop?password=hunter2\""), "did you mean `url`?"),
        (
            source("url = \"postgres://backup:hunter2@db/shop\"").replace("postgres\"\n", "sqlite\"\n"),
            "`url` belongs to kind = \"postgres\"",
        ),
    ];
    for (text, fragment) in cases {
        let error = parse(&text).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(shown.contains(fragment), "{fragment:?} in {shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("ter2"), "{shown}");
    }
}

#[test]
fn a_folder_of_tools_that_is_not_there_is_told() {
    let settings = parse(&source(&format!("{URL}\ntools = \"/no/such/folder\""))).unwrap();
    let found = check_host(&settings);
    assert!(found.iter().any(|finding| finding.message.contains("/no/such/folder does not exist")), "{found:?}");
}
