//! The walls between rooms: who must never know whom (the *never* column of docs/ARCHITECTURE.md), and the finding of
//! every path that a source file names outside its tests.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::Visit;

/// One thing that a room must not name.
pub(crate) struct Wall {
    /// The room: a folder or file under src/; empty for every room but those in `except`.
    pub(crate) room: &'static str,
    /// Rooms that may, where `room` is empty.
    pub(crate) except: &'static [&'static str],
    /// A path and everything under it; with `*::` before it, wherever it stands in a path.
    pub(crate) never: &'static str,
    /// Why not.
    pub(crate) why: &'static str,
}

const fn wall(room: &'static str, never: &'static str, why: &'static str) -> Wall {
    Wall { room, except: &[], never, why }
}

/// Every wall.
pub(crate) const WALLS: &[Wall] = &[
    wall("domain", "tokio", "the domain is pure: it waits for nothing"),
    wall("domain", "std::fs", "the domain is pure: it reads no file"),
    wall("domain", "std::env", "the domain is pure: it reads no environment"),
    wall("domain", "std::process", "the domain is pure: it runs nothing"),
    wall("domain", "std::net", "the domain is pure: it talks to nobody"),
    wall("domain", "rustix", "the domain is pure: it asks the system for nothing"),
    wall("domain", "sqlx", "the domain is pure: it asks no database"),
    wall("domain", "rusqlite", "the domain is pure: it asks no database"),
    wall("domain", "*::Instant", "the domain is pure: it is told the time"),
    wall("domain", "*::SystemTime", "the domain is pure: it is told the time"),
    wall("config", "crate::vault", "settings are read before anything is opened"),
    wall("config", "crate::sources", "settings are read before anything is opened"),
    wall("process", "crate::vault", "running a tool has nothing to do with what is stored"),
    wall("process", "crate::sources", "running a tool has nothing to do with what is backed up"),
    wall("observe", "crate::vault", "what is observed is told by the operations"),
    wall("observe", "crate::sources", "what is observed is told by the operations"),
    wall("notify", "crate::vault", "whoever tells is told what happened"),
    wall("notify", "crate::storage", "whoever tells is told what happened"),
    wall("notify", "crate::sources", "whoever tells is told what happened"),
    wall("notify", "crate::catalog", "whoever tells is told what happened"),
    wall("notify", "crate::operations", "whoever tells is told what happened"),
    wall("notify", "crate::cli", "whoever tells is told what happened"),
    wall("seal", "crate::storage", "sealing is bytes in, bytes out"),
    wall("seal", "crate::vault", "sealing is bytes in, bytes out"),
    wall("storage", "crate::vault", "a store does not know what its keys mean"),
    wall("storage", "crate::domain", "a store does not know what its keys mean"),
    wall("vault", "crate::sources", "the vault stores segments, whatever they came from"),
    wall("vault", "crate::catalog", "the vault must be readable with no catalog at hand"),
    wall("vault", "crate::config", "the vault is told what it needs"),
    wall("vault", "crate::cli", "the vault is told what it needs"),
    wall("sources", "crate::vault", "a source does not know where its data goes"),
    wall("sources", "crate::storage", "a source does not know where its data goes"),
    wall("scratch", "crate::vault", "a scratch environment does not know where its data came from"),
    wall("scratch", "crate::storage", "a scratch environment does not know where its data came from"),
    wall("schedules", "crate::vault", "what is due follows from the config alone"),
    wall("schedules", "crate::sources", "what is due follows from the config alone"),
    wall("schedules", "crate::operations", "what is due follows from the config alone"),
    wall("daemon", "crate::sources", "the daemon calls verbs, and does not do their work"),
    wall("daemon", "crate::cli", "the daemon neither prints nor reads argv"),
    wall("daemon", "*::stdout", "the daemon neither prints nor reads argv"),
    wall("operations", "crate::cli", "operations neither print nor read argv"),
    wall("operations", "clap", "operations neither print nor read argv"),
    wall("operations", "std::env::args", "operations neither print nor read argv"),
    wall("operations", "std::env::args_os", "operations neither print nor read argv"),
    wall("operations", "*::stdout", "operations neither print nor read argv"),
    Wall { room: "", except: &["clock"], never: "*::Utc::now", why: "no hidden clock: take a Clock" },
    Wall { room: "", except: &["clock"], never: "*::Local::now", why: "no hidden clock: take a Clock" },
    Wall { room: "", except: &["clock"], never: "*::SystemTime::now", why: "no hidden clock: take a Clock" },
    Wall { room: "", except: &["cli", "main"], never: "clap", why: "arguments are the command line's own" },
];

impl Wall {
    fn encloses(&self, room: &str) -> bool {
        if self.room.is_empty() { !self.except.contains(&room) } else { self.room == room }
    }

    fn forbids(&self, named: &Named) -> bool {
        let (pattern, anywhere) = match self.never.strip_prefix("*::") {
            Some(rest) => (rest, true),
            None => (self.never, false),
        };
        let pattern: Vec<&str> = pattern.split("::").collect();
        let path: Vec<&str> = named.path.iter().map(String::as_str).collect();
        if anywhere {
            return path.windows(pattern.len()).any(|window| window == pattern);
        }
        // `use std::*` brings what stands below in, unseen.
        path.starts_with(&pattern) || (named.is_glob && pattern.starts_with(&path))
    }
}

/// A path that a file names, from `crate` or from another crate's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    is_glob: bool,
}

/// What of a file stands on the wrong side of a wall: line, and what is wrong.
pub(crate) fn breaches(module: &[String], names: &[Named]) -> Vec<(usize, String)> {
    let room = module.first().map_or("", String::as_str);
    let mut found = Vec::new();
    for named in names {
        for wall in WALLS.iter().filter(|wall| wall.encloses(room) && wall.forbids(named)) {
            found.push((named.line, format!("{room} names {}, and must not: {}", named.path.join("::"), wall.why)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The module that a file under src/ holds: `["scratch", "folder"]`; `["main"]` for the binary, nothing for lib.rs.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// What a file names and does, outside its tests.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) names: Vec<Named>,
    /// Lines with `allow` attributes, those of tests included.
    pub(crate) allows: Vec<usize>,
    /// Lines with print macros.
    pub(crate) prints: Vec<usize>,
    /// First and last lines of test code.
    pub(crate) tests: Vec<(usize, usize)>,
    /// Modules in files of their own that are test code: `tests` for `#[cfg(test)] mod tests;`.
    pub(crate) test_modules: Vec<Vec<String>>,
}

/// Looks through a file.
pub(crate) fn look_through(file: &syn::File, module: &[String]) -> Found {
    let mut eye = Eye { found: Found::default(), module: module.to_vec() };
    eye.visit_file(file);
    eye.found
}

struct Eye {
    found: Found,
    module: Vec<String>,
}

impl Eye {
    fn name(&mut self, path: Vec<String>, line: usize, is_glob: bool) {
        if let Some(path) = resolve(&self.module, path) {
            self.found.names.push(Named { path, line, is_glob });
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, mut path: Vec<String>) {
        let line = tree.span().start().line;
        match tree {
            syn::UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.use_tree(&part.tree, path);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, path.clone())),
            syn::UseTree::Glob(_) => self.name(path, line, true),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                if ident != "self" {
                    path.push(ident.to_string());
                }
                self.name(path, line, false);
            }
        }
    }

    /// Paths in a macro's tokens, which syn does not read: names joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut line = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_of_path(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end_of_path(&mut path, line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end_of_path(&mut path, line);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, line: usize) {
        // A name alone is a variable more often than not; a crate's name alone reaches nothing.
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.name(path, line, false);
        }
    }

    fn is_test(&mut self, attributes: &[syn::Attribute], span: proc_macro2::Span) -> bool {
        let test = attributes.iter().any(is_cfg_test);
        if test {
            self.found.tests.push((span.start().line, span.end().line));
        }
        test
    }
}

impl<'ast> Visit<'ast> for Eye {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = attributes_of(item);
        if self.is_test(attributes, item.span()) {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                let mut path = self.module.clone();
                path.push(module.ident.to_string());
                self.found.test_modules.push(path);
            }
            // Inside tests only what suppresses a warning is looked for.
            let mut inside = Eye { found: Found::default(), module: self.module.clone() };
            syn::visit::visit_item(&mut inside, item);
            self.found.allows.append(&mut inside.found.allows);
            return;
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !self.is_test(&function.attrs, function.span()) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.name(names, path.span().start().line, false);
        syn::visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let line = attribute.span().start().line;
        let conditional = attribute.path().is_ident("cfg_attr") && names_ident(&attribute.meta, "allow");
        if attribute.path().is_ident("allow") || conditional {
            self.found.allows.push(line);
        }
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        if let Some(last) = mac.path.segments.last()
            && ["print", "println", "eprint", "eprintln", "dbg"].iter().any(|name| last.ident == name)
        {
            self.found.prints.push(last.ident.span().start().line);
        }
        syn::visit::visit_macro(self, mac);
        self.tokens(mac.tokens.clone());
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, or any other cfg that asks for `test` and not for its contrary.
fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg") && names_ident(&attribute.meta, "test") && !names_ident(&attribute.meta, "not")
}

fn names_ident(meta: &syn::Meta, wanted: &str) -> bool {
    fn any(tokens: TokenStream, wanted: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == wanted,
            TokenTree::Group(group) => any(group.stream(), wanted),
            _ => false,
        })
    }
    matches!(meta, syn::Meta::List(list) if any(list.tokens.clone(), wanted))
}

/// From `crate` on, whatever it began with. `None` for what leads out of the crate's top.
fn resolve(module: &[String], path: Vec<String>) -> Option<Vec<String>> {
    let from_here = |base: &[String], rest: &[String]| {
        std::iter::once("crate".to_owned()).chain(base.iter().cloned()).chain(rest.iter().cloned()).collect()
    };
    let ups = path.iter().take_while(|name| *name == "super").count();
    match path.first().map(String::as_str) {
        None => None,
        Some("super") => Some(from_here(module.get(..module.len().checked_sub(ups)?)?, &path[ups..])),
        Some("self") => Some(from_here(module, &path[1..])),
        // The binary names the library so.
        Some("lifeboat") => Some(from_here(&[], &path[1..])),
        Some(_) => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, source: &str) -> Vec<(usize, String)> {
        let module = module_of(path);
        let found = look_through(&syn::parse_file(source).unwrap(), &module);
        breaches(&module, &found.names)
    }

    fn lines(path: &str, source: &str) -> Vec<usize> {
        let mut lines: Vec<usize> = check(path, source).into_iter().map(|(line, _)| line).collect();
        lines.dedup();
        lines
    }

    #[test]
    fn a_forbidden_import_is_found_however_it_is_written() {
        for source in [
            "use crate::vault::Reader;",
            "use crate::{error::Code, vault};",
            "use crate::{domain::{ids, record}, vault::{self as v}};",
            "use super::super::vault::Reader;",
            "use crate::*;",
            "fn f() { crate::vault::open(); }",
            "fn f(x: &crate::vault::Reader) {}",
            "fn f() { println!(\"{}\", crate::vault::NAME); }",
            "mod inner { use super::super::super::vault; }",
            "pub use crate::vault as anything;",
            "impl crate::vault::Sink for X {}",
        ] {
            assert_eq!(lines("src/scratch/folder.rs", source), [1], "{source}");
        }
        assert_eq!(
            check("src/seal/mod.rs", "//! Doc.\n\nuse crate::storage::Storage;"),
            [(3, "seal names crate::storage::Storage, and must not: sealing is bytes in, bytes out".to_owned())]
        );
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        for source in [
            "use crate::{domain::ids::JobName, error::Code, process::Tool};",
            "use super::vault;",
            "fn f() { let vault = 1; vaults::open(vault); }",
            "/// See [`crate::vault`].\nfn f() {}",
            "#[cfg(test)] mod tests { use crate::vault::Reader; }",
            "#[cfg(test)] use crate::vault::Reader;",
            "use std::fs;",
        ] {
            assert_eq!(check("src/scratch/folder.rs", source), [], "{source}");
        }
        assert_eq!(check("src/operations/backup.rs", "use crate::vault::Reader;"), []);
    }

    #[test]
    fn the_domain_is_pure() {
        for source in [
            "use std::{env, fmt};",
            "use tokio::sync::mpsc;",
            "fn f() { std::fs::read(\"x\"); }",
            "use std::*;",
            "use std::time::{Duration, Instant};",
            "use chrono::Utc; fn f() { Utc::now(); }",
            "fn f() { chrono::Local::now(); }",
        ] {
            assert_eq!(lines("src/domain/schedule.rs", source), [1], "{source}");
        }
        assert_eq!(check("src/domain/ids.rs", "use chrono::{DateTime, Utc}; use std::time::Duration;"), []);
    }

    #[test]
    fn only_the_clock_knows_the_time() {
        let source = "fn f() { chrono::Utc::now(); }";
        assert_eq!(check("src/clock.rs", source), []);
        assert_eq!(lines("src/main.rs", source), [1]);
        assert_eq!(lines("src/operations/backup.rs", "fn f() { vec![SystemTime::now()]; }"), [1]);
        assert_eq!(lines("src/config/mod.rs", "use lifeboat::sources::files;"), [1]);
    }

    #[test]
    fn the_eye_tells_tests_prints_and_allows() {
        let source = "fn f() { println!(); }\n#[cfg(test)]\nmod tests {\n    #[allow(x)]\n    fn g() { println!(); }\n}\n#[cfg(test)]\nmod more;\n#[cfg_attr(test, allow(y))]\nfn h() {}\n";
        let found = look_through(&syn::parse_file(source).unwrap(), &["seal".to_owned()]);
        assert_eq!(found.prints, [1]);
        assert_eq!(found.allows, [4, 9]);
        assert_eq!(found.tests, [(2, 6), (7, 8)]);
        assert_eq!(found.test_modules, [["seal", "more"]]);
    }

    #[test]
    fn modules_of_files() {
        assert_eq!(module_of("src/scratch/mod.rs"), ["scratch"]);
        assert_eq!(module_of("src/sources/files/walk.rs"), ["sources", "files", "walk"]);
        assert!(module_of("src/lib.rs").is_empty());
    }
}
