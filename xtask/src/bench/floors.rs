//! What the machine gives the simplest programs on the same tree: no backup can be faster than its parts. Beside these
//! lifeboat's figures say how far from the limit it is, and which limit that is.

use std::path::Path;

use super::data::Tree;
use super::rows::Bench;
use super::scripts;
use super::table::{Sheet, Target, Unit};

/// What is done, by shell, in the tree's parent folder for `$TREE`.
const FLOORS: &[(&str, &str)] = &[
    ("walk and stat", "find \"$TREE\" -printf '%s %C@\\n' > /dev/null"),
    ("read everything, one thread", "find \"$TREE\" -type f -exec cat {} + > /dev/null"),
    // GNU tar sees that its archive is /dev/null, and reads nothing then.
    ("make a tar of it", "tar -cf - \"$TREE\" 2> /dev/null | cat > /dev/null"),
    ("SHA-256 of the tar, one thread", "sha256sum whole.tar > /dev/null"),
    ("zstd -1 of the tar, all cores", "zstd -q -1 -T0 -c whole.tar > /dev/null"),
    ("zstd -3 of the tar, all cores", "zstd -q -3 -T0 -c whole.tar > /dev/null"),
    ("age of the tar, one thread", "age -R recipient whole.tar > /dev/null"),
    ("unzstd, one thread", "zstd -qdc whole.tar.zst > /dev/null"),
    ("write the compressed bytes and sync", "cp --reflink=never whole.tar.zst copy && sync copy"),
    ("make all files anew (tar -x)", "mkdir out && tar -xf whole.tar -C out"),
];

const PREPARE: &str = "age-keygen -o key 2> /dev/null && age-keygen -y key > recipient && \
    tar -cf whole.tar \"$TREE\" 2> /dev/null && zstd -q -3 -T0 whole.tar";

/// Measures each, in rounds.
pub(super) fn floors(bench: &Bench<'_>) -> Result<Sheet, String> {
    crate::test::install(&[("tar", "tar"), ("zstd", "zstd"), ("age", "age")])?;
    let tree = Tree::make(&bench.place, bench.scale.files).map_err(|error| format!("cannot make the tree: {error}"))?;
    scripts::warm(tree.folder())?;
    let mut sheet = Sheet::new(vec!["this machine"]);
    let rows: Vec<_> = FLOORS.iter().map(|(what, _)| sheet.row(what, Unit::Seconds, Target::Nothing)).collect();
    bench.clear()?;
    let scripts = bench.scripts(0, tree.folder(), "", 0);
    scripts.fresh()?;
    scripts.run(PREPARE)?;
    for round in 1..=bench.rounds {
        println!("round {round} of {}", bench.rounds);
        for ((_, script), row) in FLOORS.iter().zip(&rows) {
            sheet.add(*row, 0, scripts.time(script)?.seconds);
        }
        forget(&bench.place, &scripts.home)?;
    }
    bench.clear()?;
    Ok(sheet)
}

/// Takes what a round wrote out of the way of the next.
fn forget(place: &Path, home: &Path) -> Result<(), String> {
    scripts::put_away(place, &home.join("out"))?;
    std::fs::remove_file(home.join("copy")).map_err(|error| format!("copy: {error}"))
}
