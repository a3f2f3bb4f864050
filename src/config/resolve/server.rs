//! Servers: the address of one, and the server of a drill, which is this machine's, a container's, or there already.

use std::ops::Range;

use toml::Spanned;

use super::{Resolver, Text, path};
use crate::config::file::{ContainerFile, DatabasesFile, ServerFile};
use crate::config::settings::{
    ContainerSettings, Databases, DrillRole, ExistingServer, ScratchServer, ServerGround, ServerSettings, SourceKind,
    SourceSettings,
};
use crate::domain::databases::MAX_ENTRY_CHARS;
use crate::domain::ids::SourceName;
use crate::domain::server::{DRILL_DATABASE_PREFIX, ServerAddress};

impl Resolver<'_, '_> {
    /// A database's address. One that a drill could take for its own is none.
    pub(super) fn address(&mut self, url: &Text) -> Option<ServerAddress> {
        match ServerAddress::parse(url.get_ref()) {
            Ok(address) if address.is_a_drills() => {
                let message = format!(
                    "databases whose names begin with {DRILL_DATABASE_PREFIX} are drills' own, and are dropped"
                );
                self.problems.at(url.span(), message);
                None
            }
            Ok(address) => Some(address),
            // The text is not quoted: it may hold a password.
            Err(error) => {
                self.problems.at_secret(url.span(), error.to_string());
                None
            }
        }
    }

    /// Which databases a source means.
    pub(super) fn databases(
        &mut self,
        databases: Option<Spanned<DatabasesFile>>,
        except: Option<Spanned<Vec<String>>>,
    ) -> Databases {
        let all = matches!(databases.as_ref().map(Spanned::get_ref), Some(DatabasesFile::Word(word)) if word == "all");
        if let (Some(except), false) = (&except, all) {
            self.problems.at(except.span(), "`exclude_databases` belongs to databases = \"all\"");
        }
        let Some(databases) = databases else { return Databases::OfUrl };
        let at = databases.span();
        match databases.into_inner() {
            DatabasesFile::Word(_) if all => {
                Databases::All { except: except.map(Spanned::into_inner).unwrap_or_default() }
            }
            DatabasesFile::Names(names) if !names.is_empty() && !names.iter().any(String::is_empty) => {
                if let Some(twice) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
                    self.problems.at(at.clone(), format!("`databases` names {:?} twice", twice.1));
                }
                if names.iter().any(|name| name.starts_with(DRILL_DATABASE_PREFIX)) {
                    let message = format!(
                        "databases whose names begin with {DRILL_DATABASE_PREFIX} are drills' own, and are dropped"
                    );
                    self.problems.at(at, message);
                }
                Databases::These(names)
            }
            _ => {
                self.problems.at(at, "`databases` is \"all\", or a list of names, [\"shop\", \"blog\"]");
                Databases::OfUrl
            }
        }
    }

    /// A source that could be a database of another one is renamed: `db-shop` beside a `db` that means several. `places` are
    /// where the sources stand.
    pub(super) fn keep_apart(&mut self, sources: &[SourceSettings], places: &[Range<usize>]) {
        // As for variables, which know no dash.
        let variable = |name: &SourceName| name.as_str().replace('-', "_");
        for (entry, at) in sources.iter().zip(places).filter(|(it, _)| *it.databases() != Databases::OfUrl) {
            let name = &entry.name;
            if name.as_str().len() > MAX_ENTRY_CHARS {
                let message = format!(
                    "a source of several databases has a name of at most {MAX_ENTRY_CHARS} letters: theirs begin with it"
                );
                self.problems.at(at.clone(), message);
            }
            let beginning = format!("{}_", variable(name));
            for (other, at) in
                sources.iter().zip(places).filter(|(other, _)| variable(&other.name).starts_with(&beginning))
            {
                let message = format!(
                    "`{}` could be a database of `{name}`, whose sources are called {name}-…; rename one",
                    other.name
                );
                self.problems.at(at.clone(), message);
            }
        }
    }

    /// The server of a drill.
    pub(super) fn server(
        &mut self,
        server: Option<Spanned<ServerFile>>,
        container: Option<Spanned<ContainerFile>>,
        sources: &[SourceSettings],
    ) -> ScratchServer {
        let places = server.as_ref().map(Spanned::span).into_iter().chain(container.as_ref().map(Spanned::span));
        if !sources.iter().any(|source| matches!(source.kind, SourceKind::Postgres(_))) {
            for at in places {
                self.problems.at(at, "this job has no source of kind \"postgres\" that would need a server");
            }
        }
        let (container_at, container) = match container {
            Some(container) => (Some(container.span()), self.container(container.into_inner())),
            None => (None, None),
        };
        let Some(server) = server.map(Spanned::into_inner) else {
            let ground = container.map_or(ServerGround::Programs, ServerGround::Container);
            return ScratchServer { ground, ..ScratchServer::default() };
        };
        let tools = server.tools.as_ref().map(|text| self.path(text));
        let ground = match &server.url {
            Some(url) => {
                if let Some(at) = container_at {
                    self.problems.at(at, "a drill has one server: either `container`, or `url` of `server`");
                }
                if let Some(settings) = &server.settings {
                    let message = "`settings` are for a server that the drill makes; one that is there has its own";
                    self.problems.at(settings.span(), message);
                }
                let role = match server.allow_superuser.as_ref().is_some_and(|flag| *flag.get_ref()) {
                    true => DrillRole::Any,
                    false => DrillRole::Ordinary,
                };
                let password = server.password.and_then(|secret| self.secret(secret));
                let existing = self.address(url).map(|address| ExistingServer { address, password, role });
                existing.map_or(ServerGround::Programs, |existing| ServerGround::Existing(Box::new(existing)))
            }
            None => {
                let lonely = [
                    ("password", server.password.as_ref().map(Spanned::span)),
                    ("allow_superuser", server.allow_superuser.as_ref().map(Spanned::span)),
                ];
                for (name, at) in lonely {
                    if let Some(at) = at {
                        self.problems.at(at, format!("`{name}` is of a server that is there: its `url` is missing"));
                    }
                }
                container.map_or(ServerGround::Programs, ServerGround::Container)
            }
        };
        let settings = server.settings.map_or_else(ServerSettings::default, |text| self.server_settings(&text));
        ScratchServer { ground, settings, tools }
    }

    fn server_settings(&mut self, text: &Text) -> ServerSettings {
        let known = ServerSettings::ALL.into_iter().find(|settings| settings.word() == text.get_ref());
        known.unwrap_or_else(|| {
            let words = ServerSettings::ALL.map(|settings| format!("\"{}\"", settings.word())).join(" or ");
            self.problems.at(text.span(), format!("`settings` is {words}: how the scratch server is set up"));
            ServerSettings::default()
        })
    }

    fn container(&mut self, container: ContainerFile) -> Option<ContainerSettings> {
        let image = container.image.get_ref();
        // It stands among the program's arguments, where a dash would make an option of it.
        if image.is_empty() || image.starts_with('-') || image.contains(|c: char| c.is_whitespace() || c.is_control()) {
            self.problems.at(container.image.span(), "`image` names an image, such as \"postgres:15\"");
            return None;
        }
        let program = container.program.as_ref().and_then(|text| match text.get_ref().as_str() {
            name @ ("docker" | "podman") => Some(name.to_owned()),
            place if place.contains('/') => match path(place, self.base) {
                Ok(path) => Some(path.to_string_lossy().into_owned()),
                Err(message) => {
                    self.problems.at(text.span(), message);
                    None
                }
            },
            _ => {
                self.problems.at(text.span(), "`program` is \"docker\" or \"podman\", or the path of either");
                None
            }
        });
        Some(ContainerSettings { image: container.image.into_inner(), program })
    }
}
