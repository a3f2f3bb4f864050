//! Real servers: a database there and back by the server's own tools, single tables, what is refused, what goes wrong.

use std::process::Command;

use super::*;
use crate::domain::check::Check;
use crate::domain::contents::{LocaleProvider, PostgresSequenceFacts, PostgresTableFacts};
use crate::error::{Code, Diagnostic as _};
use crate::sources::postgres::binaries::Wanted;
use crate::sources::postgres::layout::{TABLES_VERSION, TableList};
use crate::sources::postgres::test_server::{TestServer, programs};
use crate::sources::postgres::verify::verify;

/// A server, with what a loader needs besides.
struct Server {
    server: TestServer,
    runtime: tokio::runtime::Runtime,
    tools: Tools,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let tools = ["pg_restore", "pg_dump", "psql"];
        let folder = programs();
        let tools = Tools::find(Wanted::AtLeast(12), Some(&folder), &tools);
        let tools = runtime.block_on(tools).unwrap();
        Self { server: TestServer::start_now(), runtime, tools }
    }

    fn access(&self, database: &str) -> Access {
        self.server.access("postgres", database)
    }

    fn tool(&self, program: &str, database: &str, args: &[&str]) -> Vec<u8> {
        let output = Command::new(self.tools.folder.join(program))
            .args(["-h", self.server.folder().to_str().unwrap(), "-U", "postgres", "-d", database])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        let bytes = self.tool("psql", database, &["-X", "-v", "ON_ERROR_STOP=1", "-qAtc", sql]);
        String::from_utf8(bytes).unwrap().trim_end().to_owned()
    }

    fn private(&self) -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn options(&self, database: &str, private: &tempfile::TempDir) -> LoadOptions {
        LoadOptions {
            access: self.access("postgres"),
            database: database.to_owned(),
            tools: self.tools.clone(),
            jobs: 2,
            owners: Owners::Keep,
            globals: Globals::Leave,
            existing: Existing::Refuse,
            outside: Outside::Keep,
            tenancy: Tenancy::Owner,
            private: private.path().to_owned(),
            tables: None,
            needs: Needs { server_version_number: self.tools.major * 10_000, ..Needs::default() },
        }
    }

    fn begin(&self, options: LoadOptions) -> Result<Loader, LoadError> {
        Loader::begin(options, self.runtime.handle())
    }
}

/// The members of a source, made by the server's own tools.
struct Members {
    globals: Vec<u8>,
    schema: Vec<u8>,
    list: TableList,
    rows: Vec<(u32, Vec<u8>)>,
    sequences: String,
    large_objects: String,
    facts: PostgresFacts,
}

const SHOP: &str = r#"
    CREATE ROLE "Shop Owner"; CREATE ROLE clerk;
    COMMENT ON DATABASE shop IS 'DATABASE shop; the shop''s';
    ALTER DATABASE shop OWNER TO "Shop Owner";
    ALTER DATABASE shop SET "TimeZone" TO 'Asia/Tokyo';
    ALTER DATABASE shop CONNECTION LIMIT 50;
    REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO clerk;
    CREATE TYPE public.mood AS ENUM ('sad', 'happy');
    CREATE TABLE public.users (id bigserial PRIMARY KEY, name text NOT NULL, mood public.mood, price money,
        spent interval, upper text GENERATED ALWAYS AS (upper(name)) STORED, UNIQUE (name));
    INSERT INTO public.users (name, mood, price, spent)
        SELECT 'user ' || g || E'\t\\\n', 'happy', 1234.5, '-1 day +2 hours' FROM generate_series(1, 500) g;
    GRANT SELECT ON public.users TO clerk; ALTER TABLE public.users OWNER TO "Shop Owner";
    CREATE SCHEMA "we""ird";
    CREATE TABLE "we""ird"."a.b
c" ("X y" int REFERENCES public.users);
    INSERT INTO "we""ird"."a.b
c" VALUES (1), (2), (NULL);
    CREATE TABLE public.nothing (); INSERT INTO public.nothing DEFAULT VALUES; INSERT INTO public.nothing DEFAULT VALUES;
    CREATE INDEX users_mood ON public.users (mood, name);
    CREATE MATERIALIZED VIEW public.happy AS SELECT count(*) AS number FROM public.users WHERE mood = 'happy';
    CREATE TABLE public.parted (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
    CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE public.parted_2 (v text, k int NOT NULL); ALTER TABLE public.parted ATTACH PARTITION public.parted_2
        FOR VALUES FROM (10) TO (20);
    INSERT INTO public.parted SELECT g, 'v' || g FROM generate_series(0, 19) g;
    CREATE SEQUENCE public.odd INCREMENT BY -3 MAXVALUE 100 START 100; SELECT nextval('public.odd'), nextval('public.odd');
    SELECT lo_from_bytea(4711, '\x00ff5c27'); "#;

fn shop(server: &Server) -> Members {
    server.psql("postgres", "CREATE DATABASE shop TEMPLATE template0");
    for statement in statements::statements(SHOP).unwrap() {
        server.psql("shop", &statement.text());
    }
    let tables: Vec<(u32, &str, &str, Vec<&str>)> = [
        ("public", "users", vec!["id", "name", "mood", "price", "spent"]),
        ("we\"ird", "a.b\nc", vec!["X y"]),
        ("public", "nothing", vec![]),
        ("public", "parted_1", vec!["k", "v"]),
        ("public", "parted_2", vec!["v", "k"]),
    ]
    .into_iter()
    .map(|(schema, name, columns)| {
        let oid = server.psql("shop", &format!(
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = {} AND relname = {}",
            super::super::layout::literal(schema), super::super::layout::literal(name)
        ));
        (oid.parse().unwrap(), schema, name, columns)
    })
    .collect();
    let list = TableList {
        version: TABLES_VERSION,
        server_version_number: server.tools.major * 10_000,
        database: "shop".into(),
        encoding: "UTF8".into(),
        unrestorable: Vec::new(),
        tables: tables
            .iter()
            .map(|(oid, schema, name, columns)| ListedTable {
                oid: *oid,
                schema: (*schema).to_owned(),
                name: (*name).to_owned(),
                columns: columns.iter().map(|column| (*column).to_owned()).collect(),
                binary: false,
            })
            .collect(),
    };
    let rows: Vec<(u32, Vec<u8>)> = list
        .tables
        .iter()
        .map(|table| {
            let copy = format!("SET search_path = ''; SET lc_monetary = 'C'; {}", table.copy_out(None, None, "UTF8"));
            (table.oid, server.tool("psql", "shop", &["-X", "-qAtc", &copy]))
        })
        .collect();
    let facts = PostgresFacts {
        server_version: server.tools.major.to_string(),
        server_version_number: list.server_version_number,
        database: "shop".into(),
        encoding: "UTF8".into(),
        collate: "C.UTF-8".into(),
        ctype: "C.UTF-8".into(),
        locale_provider: LocaleProvider::Libc,
        size_bytes: 0,
        extensions: vec![("plpgsql".into(), "1.0".into())],
        roles: vec!["Shop Owner".into(), "clerk".into()],
        role_passwords: true,
        tables: list
            .tables
            .iter()
            .zip(&rows)
            .map(|(table, (_, rows))| {
                let lines = rows.split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]);
                let sum = lines.clone().fold(0_u128, |sum, line| {
                    let hash = blake3::hash(line);
                    sum.wrapping_add(u128::from_le_bytes(hash.as_bytes()[..16].try_into().unwrap()))
                });
                PostgresTableFacts {
                    schema: table.schema.clone(),
                    name: table.name.clone(),
                    columns: table.columns.clone(),
                    binary: false,
                    rows: lines.count() as u64,
                    checksum: format!("{sum:032x}"),
                }
            })
            .collect(),
        large_objects: (1, 4),
        large_object_checksum: {
            let hash = blake3::hash(&[&4711_u32.to_le_bytes()[..], b"\x00\xff\x5c\x27"].concat());
            Some(format!("{:032x}", u128::from_le_bytes(hash.as_bytes()[..16].try_into().unwrap())))
        },
        sequences: Some(vec![
            PostgresSequenceFacts { schema: "public".into(), name: "odd".into(), last_value: 97, is_called: true },
            PostgresSequenceFacts {
                schema: "public".into(),
                name: "users_id_seq".into(),
                last_value: 500,
                is_called: true,
            },
        ]),
        indexes: server
            .psql("shop", "SELECT string_agg(format('%I.%I', schemaname, indexname), '|') FROM pg_indexes WHERE schemaname !~ '^pg_'")
            .split('|').map(str::to_owned).collect(),
        constraints: server
            .psql("shop", "SELECT string_agg(format('%I.%I.%I', n.nspname, c.relname, conname), '|') FROM pg_constraint o \
                  JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|information)'")
            .split('|').map(str::to_owned).collect(),
    };
    let globals = Command::new(server.tools.folder.join("pg_dumpall"))
        .args(["-h", server.server.folder().to_str().unwrap(), "-U", "postgres", "--globals-only"])
        .output()
        .unwrap()
        .stdout;
    let schema =
        server.tool("pg_dump", "shop", &["-Fc", "-Z0", "--create", "--section=pre-data", "--section=post-data"]);
    Members {
        globals,
        schema,
        list,
        rows,
        sequences: "SELECT pg_catalog.setval('\"public\".\"odd\"', 97, true);\n\
                    SELECT pg_catalog.setval('\"public\".\"users_id_seq\"', 500, true);\n"
            .into(),
        large_objects: "SELECT pg_catalog.lo_put(4711, 0, '\\x00ff5c27');\n".into(),
        facts,
    }
}

impl Members {
    fn head(&self, mut loader: Loader) -> Result<Filling, LoadError> {
        loader.take(Part::Globals, &self.globals)?;
        loader.take(Part::Tables, &serde_json::to_vec(&self.list).unwrap())?;
        let (first, second) = self.schema.split_at(self.schema.len() / 2);
        loader.take(Part::Schema, first)?;
        loader.take(Part::Schema, second)?;
        loader.prepare(std::future::pending())
    }

    fn fill(&self, filling: Filling) -> Result<(u64, Loaded, Vec<&'static str>), LoadError> {
        let mut rows = 0;
        std::thread::scope(|scope| -> Result<(), LoadError> {
            let threads: Vec<_> = self
                .rows
                .chunks(self.rows.len().div_ceil(2))
                .map(|part| {
                    let filling = &filling;
                    scope.spawn(move || -> Result<u64, LoadError> {
                        let mut worker = filling.worker(Tables::Shared)?;
                        let mut count = 0;
                        for (oid, bytes) in part.iter().filter(|(oid, _)| filling.wants(*oid)) {
                            // Cut in the middle of rows.
                            let parts = bytes.chunks(1000).map(Ok::<_, LoadError>);
                            count += worker.copy(*oid, parts)?;
                        }
                        Ok(count)
                    })
                })
                .collect();
            for thread in threads {
                rows += thread.join().unwrap()?;
            }
            Ok(())
        })?;
        if filling.is_whole() {
            let mut worker = filling.worker(Tables::Shared)?;
            worker.run(Part::LargeObjects { number: 0 }, self.large_objects.as_bytes())?;
            worker.run(Part::Sequences, self.sequences.as_bytes())?;
        }
        let phases = std::sync::Mutex::new(Vec::new());
        let loaded = filling.finish(std::future::pending(), &|phase| phases.lock().unwrap().push(phase))?;
        Ok((rows, loaded, phases.into_inner().unwrap()))
    }
}

fn dump(server: &Server, database: &str) -> Vec<String> {
    let text = server.tool("pg_dump", database, &["--inserts", "--blobs", "--rows-per-insert=1"]);
    let text = String::from_utf8(text).unwrap();
    text.lines().filter(|line| !line.contains("restrict ")).map(str::to_owned).collect()
}

fn compare(server: &Server, database: &str, facts: &PostgresFacts) -> Vec<Check> {
    let never = std::future::pending();
    verify(&server.access(database), facts, 2, never, server.runtime.handle()).unwrap().unwrap()
}

fn all_pass(server: &Server, database: &str, facts: &PostgresFacts) -> bool {
    let checks = compare(server, database, facts);
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    checks.len() == facts.tables.len() + 6
}

#[test]
fn a_database_comes_back_beside_the_living_one_and_anew() {
    let server = Server::start();
    let members = shop(&server);
    assert!(all_pass(&server, "shop", &members.facts));

    let private = server.private();
    let mut options = server.options("Shop's 2=b", &private);
    options.needs = Needs::from(&members.facts);
    let filling = members.head(server.begin(options.clone()).unwrap()).unwrap();
    // Whoever finds it half restored sees that it is.
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $$Shop's 2=b$$";
    assert!(server.psql("postgres", comment).starts_with("NOT COMPLETE: lifeboat is restoring it"));
    let (rows, loaded, phases) = members.fill(filling).unwrap();
    assert_eq!(server.psql("postgres", comment), "DATABASE shop; the shop's");
    assert_eq!(rows, members.facts.tables.iter().map(|table| table.rows).sum::<u64>());
    assert_eq!(phases, ["index", "queryable", "analyze"]);
    assert_eq!(loaded.remarks, Vec::<String>::new());
    assert!(all_pass(&server, "Shop's 2=b", &members.facts));
    let quoted = "Shop''s 2=b";
    assert_eq!(dump(&server, "dbname='Shop\\'s 2=b'"), dump(&server, "shop"));
    let properties = |name: &str| {
        server.psql("postgres", &format!(
            "SELECT pg_get_userbyid(datdba), (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a), datconnlimit, shobj_description(d.oid, 'pg_database'), setconfig, \
             encoding, datcollate FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid \
             WHERE datname = '{name}'"
        ))
    };
    assert_eq!(properties(quoted), properties("shop"));
    assert!(properties("shop").contains("Asia/Tokyo"));

    // What is there is in the way, and is replaced when told.
    let error = server.begin(options.clone()).unwrap_err();
    assert_eq!(error.code(), Code::TargetNotEmpty, "{error}");
    let private = server.private();
    let again = LoadOptions { existing: Existing::Replace, private: private.path().to_owned(), ..options };
    members.fill(members.head(server.begin(again).unwrap()).unwrap()).unwrap();
    assert!(all_pass(&server, "Shop's 2=b", &members.facts));

    // Sabotage of every kind is seen.
    server.psql("shop", "DELETE FROM public.parted WHERE k = 3");
    server.psql("shop", "UPDATE public.users SET mood = 'sad' WHERE id = 7");
    server.psql("shop", "ALTER TABLE public.nothing RENAME TO something");
    server.psql("shop", "DROP INDEX public.users_mood");
    server.psql("shop", "SELECT setval('public.odd', 97, false), setval('public.users_id_seq', 499)");
    server.psql("shop", "SELECT lo_put(4711, 2, '\\x5d')");
    let checks = compare(&server, "shop", &members.facts);
    let failed = |checks: &[Check]| -> Vec<String> {
        checks.iter().filter(|check| !check.passed).map(|check| check.name.clone()).collect()
    };
    let actual = |name: &str| checks.iter().find(|check| check.name == name).unwrap().actual.clone();
    let sequences = "public.odd is 97 (not yet given) and was 97, public.users_id_seq is 499 and was 500";
    assert_eq!(actual("sequences"), sequences);
    assert!(actual("large objects").starts_with("1 of 4 bytes together, sum "));
    assert_eq!(
        failed(&checks),
        [
            "table public.users",
            "table public.nothing",
            "table public.parted_1",
            "tables with rows that are not in the backup",
            "indexes",
            "sequences",
            "large objects"
        ]
    );
    server.psql("shop", "SELECT setval('public.odd', 97), setval('public.users_id_seq', 500)");
    server.psql("shop", "SELECT lo_put(4711, 2, '\\x5c')");
    let mended = failed(&compare(&server, "shop", &members.facts));
    assert!(!mended.iter().any(|name| name == "sequences" || name == "large objects"), "{mended:?}");
    server.psql("shop", "SELECT lo_unlink(4711)");
    server.psql("shop", "DROP SEQUENCE public.odd");
    let missing = failed(&compare(&server, "shop", &members.facts));
    assert!(missing.ends_with(&["sequences".to_owned(), "large objects".to_owned()]), "{missing:?}");
}

#[test]
fn what_could_not_end_well_is_refused_before_anything_is_made() {
    let server = Server::start();
    let members = shop(&server);
    server.psql("postgres", "DROP DATABASE shop");
    server.psql("postgres", "DROP ROLE clerk");
    let private = server.private();
    let mut options = server.options("shop", &private);
    options.needs = Needs::from(&members.facts);
    let exists = || server.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'shop'") == "1";

    let error = server.begin(options.clone()).unwrap_err();
    assert!(error.to_string().ends_with("does not have these roles: clerk"), "{error}");
    assert!(error.hint().unwrap().contains("--globals"));
    let mut with_extension = options.clone();
    with_extension.needs.extensions.push("no_such_extension".into());
    let error = server.begin(with_extension).unwrap_err();
    assert!(error.to_string().ends_with("extensions: no_such_extension"), "{error}");
    let mut newer = options.clone();
    newer.needs.server_version_number = 990_000;
    assert!(matches!(server.begin(newer).unwrap_err(), LoadError::OlderServer { .. }));
    assert!(!exists());

    // Roles are made when told; without owners none are needed.
    let globals = LoadOptions { globals: Globals::Make, ..options.clone() };
    let (_, loaded, _) = members.fill(members.head(server.begin(globals).unwrap()).unwrap()).unwrap();
    assert_eq!(loaded.remarks, ["roles were made: clerk"]);
    assert!(all_pass(&server, "shop", &members.facts));
    assert_eq!(server.psql("shop", "SELECT has_table_privilege('clerk', 'public.users', 'SELECT')"), "t");
    server.psql("shop", "REASSIGN OWNED BY \"Shop Owner\" TO postgres");
    server.psql("shop", "DROP OWNED BY clerk, \"Shop Owner\"");
    server.psql("postgres", "DROP ROLE clerk, \"Shop Owner\"");
    let private = server.private();
    let bare =
        LoadOptions { owners: Owners::Drop, database: "bare".into(), private: private.path().to_owned(), ..options };
    members.fill(members.head(server.begin(bare).unwrap()).unwrap()).unwrap();
    assert!(all_pass(&server, "bare", &members.facts));
}

#[test]
fn single_tables_come_back_into_a_living_database() {
    let server = Server::start();
    let members = shop(&server);
    let load = |database: &str, pattern: &str, existing: Existing| {
        let private = server.private();
        let tables = Some(vec![pattern.to_owned()]);
        let options = LoadOptions { tables, existing, ..server.options(database, &private) };
        members.fill(members.head(server.begin(options)?)?)
    };
    let users = || server.psql("shop", "SELECT count(*) FROM public.users");
    let error = load("shop", "public.users", Existing::Refuse).unwrap_err();
    assert!(matches!(error, LoadError::TableNotEmpty { .. }), "{error}");
    // A table that others refer to is not emptied behind their backs.
    assert!(load("shop", "public.users", Existing::Replace).is_err());
    server.psql("shop", "DROP TABLE \"we\"\"ird\".\"a.b\nc\"");
    server.psql("shop", "DELETE FROM public.users WHERE id > 100");
    assert_eq!(load("shop", "public.users", Existing::Replace).unwrap().0, 500);
    assert_eq!(users(), "500");
    let (rows, loaded, phases) = load("shop", "we\"ird.*", Existing::Refuse).unwrap();
    assert_eq!((rows, phases), (3, vec!["analyze"]));
    assert!(loaded.remarks[0].contains("was made with its columns"), "{loaded:?}");
    assert!(matches!(load("shop", "no.such", Existing::Refuse).unwrap_err(), LoadError::Lacks { .. }));
}

#[test]
fn a_row_that_does_not_fit_is_an_error_that_names_table_and_line() {
    let server = Server::start();
    let mut members = shop(&server);
    let private = server.private();
    let filling = members.head(server.begin(server.options("broken", &private)).unwrap()).unwrap();
    let parted = members.list.tables[3].oid;
    let mut worker = filling.worker(Tables::Shared).unwrap();
    let error = worker.copy(parted, [Ok::<_, LoadError>(&b"1\ta\nsecret\tb\n"[..])]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("loading table public.parted_1") && text.contains("(line 2, column k)"), "{text}");
    // The connection can be used on, and a source that breaks off leaves nothing behind.
    let cut: [Result<&[u8], LoadError>; 2] = [Ok(&b"1\ta\n"[..]), Err(LoadError::Stopped)];
    assert!(matches!(worker.copy(parted, cut).unwrap_err(), LoadError::Stopped));
    assert_eq!(worker.copy(parted, [Ok::<_, LoadError>(&b"1\ta\n"[..])]).unwrap(), 1);
    assert!(worker.copy(1, [Ok::<_, LoadError>(&b""[..])]).is_err());
    drop(worker);
    drop(filling);

    // Two rows of the same key: the key cannot be made, and that is told.
    let (oid, rows) = &mut members.rows[3];
    assert_eq!(*oid, parted);
    rows.extend_from_slice(b"1\tagain\n");
    let private = server.private();
    let filling = members.head(server.begin(server.options("twice", &private)).unwrap()).unwrap();
    let error = members.fill(filling).unwrap_err().to_string();
    assert!(error.contains("making keys: "), "{error}");
    assert!(error.contains("could not create unique index \"parted_1_pkey\""), "{error}");
}

#[test]
fn a_table_of_its_own_is_one_transaction_and_keeps_what_was_in_it() {
    let server = Server::start();
    let members = shop(&server);
    let private = server.private();
    let filling = members.head(server.begin(server.options("own", &private)).unwrap()).unwrap();
    let parted = members.list.tables[3].oid;
    let (users, some) = members.rows.iter().find(|(oid, _)| *oid != parted).unwrap();
    let count =
        |oid: u32| server.psql("own", &format!("SELECT count(*) FROM {}", filling.table(oid).unwrap().qualified()));
    let copy = |worker: &mut Worker<'_>, oid: u32, rows: &[u8]| worker.copy(oid, [Ok::<_, LoadError>(rows)]).unwrap();

    // Nothing of it is there before its end, which the next table is too.
    let mut worker = filling.worker(Tables::Own).unwrap();
    assert_eq!(copy(&mut worker, parted, b"1\ta\n") + copy(&mut worker, parted, b"2\tb\n"), 2);
    let rows = copy(&mut worker, *users, some);
    assert_eq!(count(parted), "2");
    drop(worker);

    // What was not ended is not there; and what was in a table stays in it.
    let mut worker = filling.worker(Tables::Own).unwrap();
    assert_eq!((count(*users), copy(&mut worker, *users, some)), ("0".to_owned(), rows));
    copy(&mut worker, parted, b"3\tc\n");
    copy(&mut worker, parted, b"4\td\n");
    worker.end().unwrap();
    assert_eq!((count(*users), count(parted)), (rows.to_string(), "4".to_owned()));
}

#[test]
fn a_locale_that_is_not_there_comes_with_what_to_type() {
    let server = Server::start();
    let refused = |options: &str| {
        let access = server.access("postgres");
        server.runtime.block_on(async {
            let mut connection = connect(&access).await.unwrap();
            let sql = format!("CREATE DATABASE shop TEMPLATE template0 {options}");
            let trouble = run(&mut connection, sql).await.unwrap_err();
            LoadError::database_not_made("server", "making database shop".to_owned(), trouble)
                .hint()
                .unwrap_or_default()
        })
    };
    for options in ["LOCALE 'xx_YY.UTF-8'", "ENCODING 'LATIN1' LOCALE 'C.UTF-8'", "LC_CTYPE 'xx_YY'"] {
        assert!(refused(options).contains("apt-get install locales-all"), "{options}: {}", refused(options));
    }
    assert!(!refused("TABLESPACE nowhere").contains("locale"));
}
