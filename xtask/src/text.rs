//! The repository's files as text, and what is looked for in them whatever their language: paths of one machine, and
//! links that lead nowhere.

use std::path::{Path, PathBuf};

/// What is built, fetched or made by the demo.
const LEFT_OUT: &[&str] = &["target", ".git", "lifeboat-demo"];
/// Where a path of one machine begins. Written in two parts, so that this file does not find itself.
const MACHINE_PATHS: &[&str] = &[concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];

/// Every file, by its path from the root with `/` between names, sorted.
pub(crate) fn files(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(root.join(&folder)).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
            let kind = entry.file_type().map_err(|error| format!("{}: {error}", folder.display()))?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if folder.as_os_str().is_empty() && LEFT_OUT.iter().any(|left_out| name == *left_out) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Lines that name a place on one machine.
pub(crate) fn machine_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for pattern in MACHINE_PATHS {
            let absolute = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-.}>)*/".contains(c))
            };
            if line.match_indices(pattern).any(absolute) {
                found.push((index + 1, format!("names {pattern}, a place on somebody's machine")));
            }
        }
    }
    found
}

/// Links of a Markdown file that lead to no file. `exists` is asked for paths from the root.
pub(crate) fn dead_links(path: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<(usize, String)> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let Some(target) = rest.find(')').map(|end| &rest[..end]) else { continue };
            let target = target.split(['#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            let place = normal(&folder.join(target));
            if !place.as_deref().is_some_and(&exists) {
                found.push((index + 1, format!("links to {target}, which is not there")));
            }
        }
    }
    found
}

/// Without `..` and `.`; nothing where it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => normal.push(name),
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_a_machine_are_found() {
        let root_home = MACHINE_PATHS[0];
        let text = format!("fine\nkey = \"{root_home}key\"\n./scratch{root_home}x\n$HOME{root_home}y\n{root_home}z");
        let lines: Vec<usize> = machine_paths(&text).iter().map(|hit| hit.0).collect();
        assert_eq!(lines, [2, 5]);
    }

    #[test]
    fn dead_links_are_found() {
        let text = "[a](ERRORS.md) [b](../README.md#top) [c](gone.md)\n[web](https://example.com) [here](#x)\n```\n[x](code.md)\n```\n[up](../../out.md)";
        let there = |path: &Path| path == Path::new("docs/ERRORS.md") || path == Path::new("README.md");
        let lines: Vec<usize> = dead_links("docs/a.md", text, there).iter().map(|hit| hit.0).collect();
        assert_eq!(lines, [1, 6]);
    }
}
