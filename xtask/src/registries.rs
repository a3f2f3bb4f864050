//! Programs that PyPI or npm has and Debian has not, each in a folder of its own, where any user can run it. It does not know what
//! they are for.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::test::install;

/// Whether what a package says that it needs comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The programs need nothing of it.
    LeftOut,
    /// They do.
    Installed,
}

/// Installs `packages` of PyPI into `target` unless `program` is there; what is there must be root's alone to change.
pub(crate) fn from_pypi(packages: &[&str], needs: Needs, target: &Path, program: &Path) -> Result<(), String> {
    if !program.is_file() {
        install(&[("pip3", "python3-pip")])?;
        let mut script = r#"pip3 install --quiet --upgrade --target "$0" "$@""#.to_owned();
        if needs == Needs::LeftOut {
            script.push_str(" --no-deps");
        }
        let hint = "it comes from pypi.org; behind a proxy, set PIP_CERT, PIP_INDEX_URL";
        run(&script, target, packages).map_err(|why| format!("{why}\nhint: {hint}"))?;
    }
    must_be_root_s(target)
}

/// The same with a package of npm, whose files come to lie below `node_modules`.
pub(crate) fn from_npm(package: &str, target: &Path, program: &Path) -> Result<(), String> {
    if !program.is_file() {
        install(&[("npm", "npm")])?;
        let hint = "it comes from registry.npmjs.org; behind a proxy, set npm_config_registry, npm_config_cafile";
        let script = r#"npm install --silent --no-audit --no-fund --prefix "$0" "$@""#;
        run(script, target, &[package]).map_err(|why| format!("{why}\nhint: {hint}"))?;
    }
    must_be_root_s(target)
}

fn run(script: &str, target: &Path, packages: &[&str]) -> Result<(), String> {
    println!("== {}: installing it ({})", packages.join(", "), script.split(' ').next().unwrap_or_default());
    let mut shell = Command::new("sh");
    // For any user to read, whatever root's umask.
    shell.args(["-c", &format!("umask 022; {script}")]).arg(target).args(packages).stdin(Stdio::null());
    let status = shell.status().map_err(|error| format!("sh: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("installing {} ended with {status}", packages.join(", "))) }
}

/// Whether a program ended well, and what it said.
pub(crate) fn said(command: &mut Command) -> Result<(bool, String), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.current_dir("/").output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.trim().to_owned()))
}

/// Its folder is one that anybody may make something in, and what lies there is run by root.
fn must_be_root_s(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    let found = std::fs::symlink_metadata(folder).map_err(|error| format!("{shown}: {error}"))?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!(
        "{shown} is not root's alone to write to, so it is not run\nhint: look who made it, then rm -r {shown}"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_somebody_else_may_have_put_there_is_not_run() {
        let base = std::env::temp_dir().join(format!("lifeboat-registries-{}", std::process::id()));
        let program = base.join("bin/weed");
        fs::create_dir_all(base.join("bin")).unwrap();
        fs::write(&program, "").unwrap();
        for (mode, good) in [(0o755, true), (0o775, false), (0o777, false)] {
            fs::set_permissions(&base, Permissions::from_mode(mode)).unwrap();
            assert_eq!(from_pypi(&["nothing"], Needs::LeftOut, &base, &program).is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
        let link = base.join("link");
        symlink(&base, &link).unwrap();
        assert!(
            from_pypi(&["nothing"], Needs::LeftOut, &link, &link.join("bin/weed")).is_err(),
            "a link is somebody's who can move it"
        );
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_a_program_says_is_told_with_how_it_ended() {
        assert_eq!(said(Command::new("sh").args(["-c", "echo a; echo b >&2"])).unwrap(), (true, "a\nb".to_owned()));
        assert!(!said(Command::new("sh").args(["-c", "exit 3"])).unwrap().0);
        assert!(said(&mut Command::new("/no/such/program")).is_err());
    }
}
