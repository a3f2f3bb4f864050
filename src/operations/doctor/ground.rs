//! What `doctor` looks at where drills restore databases: the server that is there, or the container's image.

use std::time::Duration;

use crate::config::{ContainerSettings, DrillSettings, ExistingServer, ServerGround};
use crate::error::{Error, Result};
use crate::scratch::confine::Trust;
use crate::scratch::guest;
use crate::scratch::postgres::container::{find_program, image_id, server_version};
use crate::sources::postgres::binaries::MAJORS;

use super::super::access::access_of;
use super::super::drill::ground::{client_tools, powers};
use super::super::host::Host;
use super::Finding;

/// How long a server may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Looks at the server of a job's drill.
pub(super) fn server(host: &Host, about: &str, drill: &DrillSettings) -> Vec<Finding> {
    match &drill.server.ground {
        ServerGround::Programs => Vec::new(),
        ServerGround::Container(settings) => vec![found(about, container(host, settings))],
        ServerGround::Existing(settings) => {
            let mut findings = Vec::new();
            match existing(host, settings, drill) {
                Ok((message, powers)) => {
                    findings.push(Finding::ok(about, message));
                    if !powers.is_empty() {
                        findings.push(Finding::warning(
                            about,
                            format!(
                                "whoever controls the source can take over {}: the role {} reaches beyond its own databases ({})",
                                settings.address,
                                settings.address.role,
                                powers.join(", ")
                            ),
                            "CREATE ROLE drill LOGIN CREATEDB BYPASSRLS is enough for most: name it in `url`, and take \
                             `allow_superuser` out",
                        ));
                    }
                }
                Err(error) => findings.push(Finding::of(about, &error)),
            }
            findings
        }
    }
}

fn found(about: &str, message: Result<String>) -> Finding {
    match message {
        Ok(message) => Finding::ok(about, message),
        Err(error) => Finding::of(about, &error),
    }
}

fn existing(host: &Host, settings: &ExistingServer, drill: &DrillSettings) -> Result<(String, Vec<String>)> {
    let access = access_of(&settings.address, settings.password.as_ref())?;
    let trust = if drill.trust_source { Trust::Source } else { Trust::Hostile };
    host.runtime.block_on(async {
        let asked = tokio::time::timeout(DEADLINE, guest::look(&access)).await;
        let tenant = asked.map_err(|_| {
            let message = format!("{} did not answer within {} s", access.address, DEADLINE.as_secs());
            Error::new(crate::error::Code::ScratchFailed, message)
                .with_hint("look at its load: select * from pg_stat_activity")
        })??;
        tenant.must_do(&access, powers(settings))?;
        let major = tenant.version_number / 10_000;
        let tools = client_tools(major, drill.server.tools.as_deref(), trust).await?;
        let message = format!(
            "drills restore into {}: PostgreSQL {}, where {} may make databases; pg_restore of {}.{} is in {}",
            access.address,
            tenant.version,
            access.address.role,
            tools.major,
            tools.minor,
            tools.folder.display()
        );
        Ok((message, tenant.powers))
    })
}

fn container(host: &Host, settings: &ContainerSettings) -> Result<String> {
    host.runtime.block_on(async {
        let program = find_program(settings.program.as_deref())?;
        let id = image_id(&program, &settings.image).await?;
        let (major, minor) = server_version(&program, &id).await?;
        let known = if MAJORS.contains(&major) { "" } else { ", which this lifeboat does not know" };
        Ok(format!(
            "scratch servers run in containers of {}, by {}: PostgreSQL {major}.{minor}{known}",
            settings.image,
            program.display()
        ))
    })
}
