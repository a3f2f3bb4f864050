//! The bench's page: the parts of docs/PERFORMANCE.md between marks, which a run fills, and what a run says of the
//! machine it ran on. Nothing here names a host, a user or a place.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Puts `block` between the marks of `part`.
pub(super) fn fill(page: &str, part: &str, block: &str) -> Result<String, String> {
    let (open, close) = (format!("<!-- bench {part} -->\n"), format!("<!-- end of bench {part} -->"));
    let begin = page.find(&open).ok_or_else(|| format!("has no line {}", open.trim()))? + open.len();
    let length = page[begin..].find(&close).ok_or_else(|| format!("has no line {close} after {}", open.trim()))?;
    Ok(format!("{}\n{}\n\n{}", &page[..begin], block.trim(), &page[begin + length..]))
}

/// A sentence on the machine and the versions. `place` is where the data lie.
pub(super) fn facts(root: &Path, place: &Path, rounds: usize, versions: &[String]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory_kib: u64 =
        field(&read("/proc/meminfo"), "MemTotal").split(' ').next().unwrap_or("").parse().unwrap_or(0);
    let load = read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned();
    let commit = said(root, "git", &["describe", "--always", "--dirty"]);
    let kernel = said(root, "uname", &["-sr"]);
    let file_system = said(place, "findmnt", &["-no", "FSTYPE", "-T", "."]);
    format!(
        "{date}, commit {commit}, medians of {rounds}. {cores} cores ({model}), {memory:.0} GiB of memory, {kernel}, {file_system}; \
         load before: {load}. Versions: {versions}.",
        date = said(root, "date", &["-u", "+%F"]),
        model = field(&read("/proc/cpuinfo"), "model name"),
        memory = memory_kib as f64 / 1_048_576.0,
        versions = versions.join(", "),
    )
}

fn field(text: &str, name: &str) -> String {
    let of = |line: &str| {
        line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    text.lines().find_map(of).unwrap_or_else(|| "unknown".to_owned())
}

fn said(dir: &Path, program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).current_dir(dir).output() {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_its_marks_is_replaced() {
        let page = "a\n<!-- bench tree -->\nold\n<!-- end of bench tree -->\nb\n<!-- bench days -->\n<!-- end of bench days -->\n";
        let filled = fill(page, "tree", "new\n").unwrap();
        let expected = "a\n<!-- bench tree -->\n\nnew\n\n<!-- end of bench tree -->\nb\n<!-- bench days -->\n<!-- end of bench days -->\n";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, "tree", "new").unwrap(), expected, "twice is as once");
        assert!(fill(page, "million", "new").is_err());
        assert!(fill("<!-- bench tree -->\n", "tree", "new").is_err());
    }

    #[test]
    fn fields_of_proc_files() {
        assert_eq!(field("x : 1\nmodel name\t: Some CPU\n", "model name"), "Some CPU");
        assert_eq!(field("", "model name"), "unknown");
    }
}
