//! `demo`: the whole story on one machine, with this very program: back up, drill, damage, repair, report.
//!
//! Nothing is staged. Each command is run as a person would type it, what it prints is what is shown, and every step
//! makes sure, by exit code and JSON, that what the story says is so; where it is not, the demo fails.

mod config;
mod folder;
mod play;
mod rot;
mod shop;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::quantity::{human_bytes, human_seconds};
use crate::error::{Code, Error, Kind, Result};
use crate::operations::host::Host;

use super::args::{DemoArgs, Global};
use super::output::{columns, print_json};

use config::{Data, Drill, Keys};
use folder::failed;
use play::{Stage, Voice, make_sure};
use shop::{Built, Day, Scale, Shop};

/// Orders that the shop takes before a backup begins beside it: then it is surely at work.
const ORDERS_BEFORE_A_BACKUP: u64 = 25;
/// What the second backup of the shop may store at most of what the first did, in per cent.
const MAX_SECOND_BACKUP_PERCENT: u64 = 50;
/// Where a drill restores to, if others can enter the demo's folder.
const SCRATCH: &str = "scratch";
/// Where `init` puts the identity.
const IDENTITY: &str = "identity.txt";

/// What was measured: the demo's `--json`.
#[derive(Debug, Serialize)]
struct Measured {
    schema_version: u32,
    dir: PathBuf,
    first_backup: Backup,
    second_backup: Backup,
    drill: Value,
    damaged_object: String,
    found_by: [&'static str; 2],
    drill_after_repair: Value,
    duration_seconds: f64,
}

/// One backup of the story.
#[derive(Debug, Clone, Serialize)]
struct Backup {
    id: String,
    logical_bytes: u64,
    new_bytes: u64,
    duration_seconds: f64,
}

/// Plays the demo.
///
/// # Errors
/// When the folder is not to be had, or a step does not come out as the story says.
pub(super) fn run(host: &Host, global: &Global, args: &DemoArgs) -> Result<()> {
    let started = host.clock.monotonic();
    let voice = if global.json { Voice::Aside } else { Voice::Story };
    let own = own_data(args)?;
    let dir = folder::prepare(&args.dir)?;
    let stage = Stage::new(host, dir.clone(), voice)?;
    stage.tell(&format!(
        "A demo of Lifeboat. All of it happens in {}, with the program that you are running,\n\
         and every command is shown as you would type it there.",
        args.dir.display()
    ));

    let data = match own {
        Some(own) => own,
        None => build(&stage, host, &dir)?,
    };
    set_up(&stage, &dir, &data)?;
    let first = first_backup(&stage, host, &data)?;
    let second = second_backup(&stage, host, &data, &first)?;
    let drill = passing_drill(&stage, &data)?;
    let damaged = rot_and_repair(&stage, &dir, &data)?;
    let drill_after_repair = last_drill(&stage)?;
    report(&stage, &dir)?;
    let measured = Measured {
        schema_version: 1,
        dir: dir.clone(),
        first_backup: first,
        second_backup: second,
        drill,
        damaged_object: damaged,
        found_by: ["check", "drill"],
        drill_after_repair,
        duration_seconds: (host.clock.monotonic() - started).as_secs_f64(),
    };
    sum_up(&stage, args, &data, &measured);
    if global.json {
        print_json(&measured);
    }
    Ok(())
}

/// The user's own data, if it was named; it must not overlap with the folder that the demo removes and fills.
fn own_data(args: &DemoArgs) -> Result<Option<Data>> {
    let real = |path: &PathBuf| {
        path.canonicalize()
            .map_err(|cause| Error::new(Code::NotFound, format!("cannot find {}: {cause}", path.display())))
    };
    let (files, sqlite) = (args.files.as_ref().map(real).transpose()?, args.sqlite.as_ref().map(real).transpose()?);
    if files.is_none() && sqlite.is_none() {
        return Ok(None);
    }
    let dir = real_or_future(&args.dir)?;
    for path in [&files, &sqlite].into_iter().flatten() {
        if path.starts_with(&dir) || dir.starts_with(path) {
            let message =
                format!("{} and the demo's own folder {} lie within each other", path.display(), dir.display());
            return Err(Error::new(Code::Usage, message).with_hint("say --dir DIR with a folder somewhere else"));
        }
    }
    Ok(Some(Data::Own { files, sqlite }))
}

/// The real path of a folder that may not exist yet.
fn real_or_future(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir).map_err(|cause| failed("find", dir, cause))?;
    for ancestor in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) {
            return Ok(real.join(rest));
        }
    }
    Ok(absolute)
}

fn build(stage: &Stage<'_>, host: &Host, dir: &Path) -> Result<Data> {
    stage.heading("1. Something to lose");
    let (shop, built) = Shop::build(&dir.join("shop"), Scale::DEMO, host.clock.now())?;
    let Built { rows, files, bytes, xattr } = built;
    let attribute = if xattr { ", an extended attribute" } else { "" };
    stage.tell(&format!(
        "A small shop: shop/shop.db, a SQLite database with {} rows of customers, orders and payments;\n\
         shop/uploads/ with {} files, {}: pictures, invoices, exports, a film; a symbolic\n\
         and a hard link{attribute}, names with umlauts.",
        grouped(rows),
        grouped(files),
        human_bytes(bytes),
    ));
    Ok(Data::Shop(shop))
}

fn set_up(stage: &Stage<'_>, dir: &Path, data: &Data) -> Result<()> {
    stage.heading("2. Keys, a vault, a config");
    // Named, because without a name a config of this machine in /etc would be found.
    stage.type_in(&["init", "."], 0)?;
    let key = stage.ask(&["key", "show", IDENTITY], 0)?;
    let (Some(recipient), Some(trust)) = (key["recipients"][0].as_str(), key["trust"].as_str()) else {
        return Err(play::unexpected(format!("`lifeboat init` left no public keys in {IDENTITY}: {key}")));
    };

    let root = rustix::process::geteuid().is_root();
    let scratch = match root && !folder::is_reachable(dir) {
        true => std::env::temp_dir(),
        false => PathBuf::from(SCRATCH),
    };
    let outside = (scratch != Path::new(SCRATCH)).then(|| scratch.display().to_string());
    let keys = Keys { identity: IDENTITY, recipient, trust };
    let text = config::text(dir, data, &keys, &Drill { trust_source: !root, scratch })?;
    let file = dir.join("lifeboat.toml");
    // In place of the one that `init` made; nobody else may read that, and so it stays.
    fs::write(&file, &text).map_err(|cause| failed("write", &file, cause))?;
    stage.tell("\nNow the config is filled in: what to back up, what was promised, what a drill must find.\n");
    stage.prompt("cat lifeboat.toml");
    stage.show(&text);
    stage.tell("");
    if !root {
        stage.tell(
            "(You are not root, so a drill cannot run its checks as somebody with fewer rights; `trust_source`\n\
             allows them yours. That is all right here: the data is our own.)\n",
        );
    }
    if let Some(outside) = outside {
        stage.tell(&format!(
            "(Drills restore to {outside}: their checks run as a user without rights, who cannot get to this folder.)\n"
        ));
    }
    stage.type_in(&["config", "check"], 0)?;
    stage.type_in(&["doctor"], 0)?;
    Ok(())
}

fn first_backup(stage: &Stage<'_>, host: &Host, data: &Data) -> Result<Backup> {
    stage.heading("3. The first backup");
    let (backup, orders) = back_up(stage, host, data)?;
    make_sure(backup.new_bytes > 0, || "the first backup stored nothing".to_owned())?;
    if let Some(orders) = orders {
        stage.tell(&format!(
            "\nThe shop stayed open: {orders} orders came in around it, each in several tables. The backup has the database\n\
             as it was at one moment. Silence is how cron likes a backup that went well."
        ));
    }
    stage.tell("");
    stage.type_in(&["show", data.job()], 0)?;
    Ok(backup)
}

fn second_backup(stage: &Stage<'_>, host: &Host, data: &Data, first: &Backup) -> Result<Backup> {
    match data {
        Data::Shop(shop) => {
            stage.heading("4. A day later");
            let Day { files_added, files_edited, files_deleted, orders_added, orders_updated, orders_deleted } =
                shop.change_a_day(host.clock.now())?;
            stage.tell(&format!(
                "What a day does (here in a second): {files_added} new files, {files_edited} edited, {files_deleted} deleted;\n\
                 {orders_added} new orders, {orders_updated} sent, {orders_deleted} returned and erased.\n"
            ));
        }
        Data::Own { .. } => {
            stage.heading("4. The next backup");
            stage.tell(
                "Your own data is only read, so nothing was changed for this one: it shows what an idle day costs.\n\
                 (While a SQLite database in WAL mode is read, SQLite itself keeps -wal and -shm files beside it.)\n",
            );
        }
    }
    let (backup, _) = back_up(stage, host, data)?;
    make_sure(backup.id != first.id, || "the second backup has the id of the first".to_owned())?;
    if matches!(data, Data::Shop(_)) {
        make_sure(backup.new_bytes < first.new_bytes * MAX_SECOND_BACKUP_PERCENT / 100, || {
            format!("the second backup stored {} bytes after {} of the first", backup.new_bytes, first.new_bytes)
        })?;
    }
    stage.type_in(&["list"], 0)?;
    stage.tell(&format!(
        "\nBoth are whole: either can be restored alone. The first stored {} in {}, this one {} in {}.",
        human_bytes(first.new_bytes),
        human_seconds(first.duration_seconds),
        human_bytes(backup.new_bytes),
        human_seconds(backup.duration_seconds),
    ));
    Ok(backup)
}

/// Backs up, with the shop open; what was committed, and how many orders came in.
fn back_up(stage: &Stage<'_>, host: &Host, data: &Data) -> Result<(Backup, Option<u64>)> {
    let writer = match data {
        Data::Shop(shop) => {
            let writer = shop.open_for_business(Arc::clone(&host.clock))?;
            writer.wait_for_orders(ORDERS_BEFORE_A_BACKUP)?;
            Some(writer)
        }
        Data::Own { .. } => None,
    };
    let duration_seconds = stage.type_in(&["backup"], 0)?;
    let orders = writer.map(shop::Writer::stop).transpose()?;
    let manifest = newest_manifest(stage, data)?;
    make_sure(manifest["completeness"] == "complete", || format!("the backup is not complete: {manifest}"))?;
    let sum = |field: &str| -> u64 {
        manifest["sources"].as_array().into_iter().flatten().filter_map(|source| source[field].as_u64()).sum()
    };
    let backup = Backup {
        id: manifest["id"].as_str().unwrap_or_default().to_owned(),
        logical_bytes: sum("logical_bytes"),
        new_bytes: sum("new_bytes"),
        duration_seconds,
    };
    make_sure(!backup.id.is_empty(), || format!("the backup has no id: {manifest}"))?;
    Ok((backup, orders))
}

fn newest_manifest(stage: &Stage<'_>, data: &Data) -> Result<Value> {
    Ok(stage.ask(&["show", data.job()], 0)?["manifest"].take())
}

fn passing_drill(stage: &Stage<'_>, data: &Data) -> Result<Value> {
    stage.heading("5. A drill: could we restore it, and how long would it take?");
    stage.tell(
        "From the vault and the key alone, into a scratch folder; every file is compared with what was sealed, every\n\
         table with what was counted in the same snapshot, and the config's own checks are asked.\n",
    );
    stage.type_in(&["drill"], 0)?;
    let drill = last_drill(stage)?;
    make_sure(drill["outcome"] == "passed" && drill["rto_seconds"].is_number(), || {
        format!("the drill did not pass: {drill}")
    })?;
    if matches!(data, Data::Shop(_)) {
        stage.tell("\nThe `sql` check adds up the shop's books: a copy taken between an order and its payment would fail it.\n");
    } else {
        stage.tell("");
    }
    stage.type_in(&["status"], 0)?;
    Ok(drill)
}

/// The newest drill, as the report's JSON has it.
fn last_drill(stage: &Stage<'_>) -> Result<Value> {
    let mut report = stage.ask(&["report", "--format", "json"], 0)?;
    let drills = report["jobs"][0]["drills"].as_array_mut().and_then(Vec::pop);
    drills.ok_or_else(|| play::unexpected("the report knows of no drill"))
}

/// Rots a bit, has it found twice, puts it back; the object's name.
fn rot_and_repair(stage: &Stage<'_>, dir: &Path, data: &Data) -> Result<String> {
    stage.heading("6. What if the vault rots?");
    let rot = rot::flip(&dir.join("vault"), &newest_manifest(stage, data)?)?;
    stage.tell(&format!(
        "One bit of the newest backup is flipped now, as a disk would do it; size and time stay as they were:\n\
         bit 2 of byte {} of vault/objects/{}/{}...\n",
        grouped(rot.offset),
        &rot.object[..2],
        &rot.object[..12],
    ));
    let (damage, failed) = (Kind::Damage.exit_code(), Kind::DrillFailed.exit_code());
    stage.type_in(&["check"], damage)?;
    let found = stage.ask(&["check"], damage)?;
    let damaged = found["damaged"].as_array().map(Vec::as_slice).unwrap_or_default();
    make_sure(
        matches!(damaged, [one] if one["object"].as_str().is_some_and(|object| object.contains(&rot.object))),
        || format!("`lifeboat check` should have found {} and nothing else: {found}", rot.object),
    )?;
    let both = match damaged[0]["backups"].as_array().map_or(0, Vec::len) {
        0 | 1 => "",
        _ => {
            " What did not change between the backups is\nstored once, so one bit can spoil them all: keep a second copy of a vault."
        }
    };
    stage
        .tell(&format!("\nThat took no key: an object's name is the hash of its bytes.{both} A drill finds it too:\n"));
    stage.type_in(&["drill"], failed)?;
    let drill = last_drill(stage)?;
    make_sure(drill["outcome"] == "failed", || format!("the drill of a damaged backup did not fail: {drill}"))?;
    let status = stage.ask(&["status"], 0)?;
    make_sure(status["jobs"][0]["state"] == "critical", || format!("status should be critical: {status}"))?;
    stage.tell("\n`lifeboat status` is critical now, and stays so until a drill passes.");

    stage.heading("7. Repaired");
    rot.repair()?;
    stage.tell(
        "The bit is put back. Only a demo can do that: a real repair is the object's copy from a second vault, which\n\
         has the same name there and proves itself by it. The drill that passes now clears the backup.\n",
    );
    stage.type_in(&["check"], 0)?;
    stage.type_in(&["drill", "--quiet"], 0)?;
    let drill = last_drill(stage)?;
    make_sure(drill["outcome"] == "passed", || format!("the drill of the repaired backup did not pass: {drill}"))?;
    stage.type_in(&["list"], 0)?;
    Ok(rot.object)
}

fn report(stage: &Stage<'_>, dir: &Path) -> Result<()> {
    stage.heading("8. What was promised, and what was measured");
    stage.type_in(&["status"], 0)?;
    let status = stage.ask(&["status"], 0)?;
    make_sure(status["jobs"][0]["state"] != "critical", || {
        format!("status should not be critical any more: {status}")
    })?;
    stage.tell("\nThe report says it in full, for whoever must be shown it; the drill that failed stays in it:\n");
    stage.type_in(&["report", "--since", "1d", "--output", "report.md"], 0)?;
    let file = dir.join("report.md");
    let text = fs::read_to_string(&file).map_err(|cause| failed("read", &file, cause))?;
    let (from, to) = ("### Measured RTO", "### Backups");
    stage.prompt(&format!("sed -n '/^{from}/,/^{to}/p' report.md"));
    let excerpt: Vec<&str> = text.lines().skip_while(|line| !line.starts_with(from)).collect();
    let length = excerpt.iter().position(|line| line.starts_with(to)).unwrap_or(excerpt.len());
    make_sure(length > 0 && length < excerpt.len(), || format!("report.md has no part from {from:?} to {to:?}"))?;
    stage.show(&excerpt[..=length].join("\n"));
    Ok(())
}

fn sum_up(stage: &Stage<'_>, args: &DemoArgs, data: &Data, measured: &Measured) {
    let Measured { first_backup: first, second_backup: second, drill, .. } = measured;
    let seconds = |value: &Value| value.as_f64().map_or_else(|| value.to_string(), human_seconds);
    let stored = |backup: &Backup| {
        format!("{} stored in {}", human_bytes(backup.new_bytes), human_seconds(backup.duration_seconds))
    };
    let objective = seconds(&drill["rto_objective_seconds"]);
    stage.heading("What you saw");
    show_pairs(
        stage,
        &[
            ("data", &human_bytes(second.logical_bytes)),
            ("first backup", &stored(first)),
            ("second backup", &stored(second)),
            (
                "restored and checked",
                &format!("in {} (RTO measured; promised: {objective})", seconds(&drill["rto_seconds"])),
            ),
            ("lost, had it been real", &format!("the last {} (RPO at the drill)", seconds(&drill["rpo_seconds"]))),
            ("one flipped bit", "found by `check` without a key, and by `drill`"),
            ("all of it", &human_seconds(measured.duration_seconds)),
        ],
    );

    stage.heading("What to type next");
    let dir = args.dir.display();
    let program = stage.program().display();
    let restore = format!("lifeboat restore {} --to restored --identity {IDENTITY}", data.job());
    show_pairs(
        stage,
        &[
            (&format!("cd {dir}; alias lifeboat={program}"), ""),
            (&restore, "# get it back"),
            ("less report.md", "# what an auditor would read"),
            ("less vault/README.txt", "# get it back without lifeboat: age, zstd, tar"),
        ],
    );
    stage.tell("\nOn your own data:\n");
    show_pairs(
        stage,
        &[
            ("lifeboat demo --files DIR --sqlite FILE", "# this story again; they are only read"),
            ("lifeboat init DIR", "# a config to fill in, keys, a vault"),
        ],
    );
    stage.tell(&format!("\n`rm -r {dir}` removes everything that this demo made."));
}

/// Two columns, behind the margin.
fn show_pairs(stage: &Stage<'_>, pairs: &[(&str, &str)]) {
    let rows: Vec<Vec<String>> =
        pairs.iter().map(|(left, right)| vec![(*left).to_owned(), (*right).to_owned()]).collect();
    stage.show(&columns(&rows));
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn ones_own_data_is_never_in_the_folder_that_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let inside = base.path().join("demo/data");
        fs::create_dir_all(&inside).unwrap();
        let args =
            |files: &Path, dir: &Path| DemoArgs { files: Some(files.to_owned()), sqlite: None, dir: dir.to_owned() };
        let refused = |files: &Path, dir: &Path| own_data(&args(files, dir)).unwrap_err().code();
        assert_eq!(refused(&inside, &base.path().join("demo")), Code::Usage);
        assert_eq!(refused(&inside, &inside), Code::Usage);
        assert_eq!(refused(base.path(), &base.path().join("not/yet/there")), Code::Usage);
        assert_eq!(refused(&base.path().join("gone"), &inside), Code::NotFound);
        std::os::unix::fs::symlink(&inside, base.path().join("way")).unwrap();
        assert_eq!(refused(&base.path().join("way"), &base.path().join("demo")), Code::Usage);
        assert!(matches!(own_data(&args(&inside, &base.path().join("other"))), Ok(Some(Data::Own { .. }))));
        let none = DemoArgs { files: None, sqlite: None, dir: inside };
        assert!(own_data(&none).unwrap().is_none());
    }
}
