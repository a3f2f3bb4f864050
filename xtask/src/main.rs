//! The project's own chores, each one a `cargo xtask` command: run every test, check the house rules, write what is
//! generated. It does not depend on the library, so that it can say what is wrong with one that does not compile.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore's output is its purpose")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod documents;
mod errors;
mod registries;
mod test;
mod text;
mod tidy;
mod walls;

const USAGE: &str = "\
cargo xtask test [--no-lint] [FILTER]   install what tests need, lint, and run them; skips nothing
cargo xtask bench files [--all] [--quick] [--output docs/PERFORMANCE.md] [..]   time lifeboat beside its peers
cargo xtask bench postgres [--quick] [--rounds N] [--output docs/PERFORMANCE.md]   the same for a database
cargo xtask bench s3 [--quick] [--rounds N] [--output docs/PERFORMANCE.md] [..]   the same for a vault in a bucket
cargo xtask tidy                        check the walls between rooms and the house rules
cargo xtask errors                      write docs/ERRORS.md from src/error.rs
cargo xtask pictures                    take the pictures of the status page anew (docs/images/)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let done = match args.as_slice() {
        ["test", rest @ ..] => test::Options::parse(rest).and_then(|options| test::run(&root, &options)),
        ["bench", "postgres", rest @ ..] => {
            bench::postgres::Options::parse(rest).and_then(|options| bench::postgres::run(&root, &options))
        }
        ["bench", "s3", rest @ ..] => {
            bench::s3::Options::parse(rest).and_then(|options| bench::s3::run(&root, &options))
        }
        ["bench", rest @ ..] => bench::Options::parse(rest).and_then(|options| bench::run(&root, &options)),
        ["tidy"] => tidy::run(&root),
        ["errors"] => errors::write(&root),
        ["pictures"] => test::pictures(&root),
        _ => Err(format!("usage:\n{USAGE}")),
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder: cargo says where xtask's own is.
fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("xtask"), PathBuf::from);
    own.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}
