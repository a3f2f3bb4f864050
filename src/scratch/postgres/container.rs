//! The programs of a server in a container, by docker or podman: for hosts that have none of their own.
//!
//! A container is one more wall, and no other rights: what runs in it has the confinement's uid, no capability, no network,
//! and of this machine's files the server's own folder alone, at the same place as outside. So its socket, its log and its
//! processes are found as those of a server without a container.
//!
//! The program in front (`docker run`) is not what runs: where it is killed, the container stays. So each container has a
//! name and is removed by it, and a label says which scratch folder it belongs to: the next drill removes one whose folder
//! nobody holds any more. The images are the operator's: nothing is pulled.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Code, Diagnostic};
use crate::process::{Output, TOOL_PATH, Tool, ToolError};
use crate::scratch::folder::{SCRATCH_PREFIX, is_live};
use crate::sources::postgres::binaries::{Tools, version};

/// The programs that do it, the one that is looked for first at first: it needs no service of root's.
const PROGRAMS: [&str; 2] = ["podman", "docker"];
/// What tells our containers from others; its value is the scratch folder.
const LABEL: &str = "lifeboat.drill";
/// Processes, open files and bytes of a core dump. They are said, so that no default of the program's takes their place: a
/// root without the right to raise limits could not start a container at all.
const LIMITS: [&str; 6] = ["--ulimit", "nproc=1024:1024", "--ulimit", "nofile=4096:4096", "--ulimit", "core=0:0"];
/// How long the program may take to answer a question, and to start something small.
const ASK_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to remove a container, and how often it is looked at.
const REMOVE_LIMIT: Duration = Duration::from_secs(60);
const REMOVE_LOOK: Duration = Duration::from_millis(10);

/// An image, and how containers are made of it.
#[derive(Debug)]
pub struct Container {
    program: PathBuf,
    image: String,
    /// What the image's name meant when it was looked up: a name can get another meaning.
    id: String,
    scratch: PathBuf,
    name: String,
    owner: (u32, u32),
    /// How many containers were made.
    made: AtomicU32,
}

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Neither program is there.
    #[error("neither podman nor docker is on this machine")]
    NoProgram,
    /// The server would have our own uid.
    #[error("a server in a container needs a uid of its own, which only root can give")]
    NoOwnUid,
    /// The image is not there, or the program cannot be asked.
    #[error("there is no image {image} for {program}: {said}")]
    NoImage {
        /// Its name.
        image: String,
        /// docker or podman.
        program: String,
        /// What it said.
        said: String,
    },
    /// No server in it, or of another version.
    #[error("the image {image} has {found}, and the source is of PostgreSQL {wanted}")]
    Version {
        /// Its name.
        image: String,
        /// `PostgreSQL 16`, `no postgres`.
        found: String,
        /// The source's major version.
        wanted: u32,
    },
    /// docker's way to write a folder has no way to write this one.
    #[error("{path} cannot be shown to a container: there is a colon in it, or it is no text")]
    Path {
        /// The folder.
        path: String,
    },
    /// The program does not work.
    #[error("cannot ask {program}")]
    Tool {
        /// docker or podman.
        program: String,
        /// Why.
        #[source]
        cause: ToolError,
    },
}

impl Diagnostic for ContainerError {
    fn code(&self) -> Code {
        match self {
            Self::NoOwnUid => Code::Unconfined,
            Self::Version { .. } | Self::Path { .. } => Code::ScratchFailed,
            Self::NoProgram | Self::NoImage { .. } | Self::Tool { .. } => Code::ToolFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProgram => "apt-get install podman".to_owned(),
            Self::NoOwnUid => {
                "run the drill as root, and take trust_source = true out of [job.<name>.drill]".to_owned()
            }
            Self::NoImage { image, program, .. } => format!("{program} pull {image}; drills pull nothing themselves"),
            Self::Version { wanted, .. } => {
                format!(
                    "name an image of that version as `image` of [job.<name>.drill.container], such as \"postgres:{wanted}\""
                )
            }
            Self::Path { .. } => "name another folder as `scratch` of the drill".to_owned(),
            Self::Tool { program, cause } => return cause.hint().or(Some(format!("see that `{program} info` works"))),
        })
    }
}

/// Where docker or podman is.
///
/// # Errors
/// [`ContainerError::NoProgram`].
pub fn find_program(configured: Option<&str>) -> Result<PathBuf, ContainerError> {
    let names = configured.map_or_else(|| PROGRAMS.to_vec(), |name| vec![name]);
    let mut places = names.iter().flat_map(|name| match name.contains('/') {
        true => vec![PathBuf::from(name)],
        false => std::env::split_paths(TOOL_PATH).map(|folder| folder.join(name)).collect(),
    });
    places.find(|place| place.is_file()).ok_or(ContainerError::NoProgram)
}

/// Removes the containers of drills below `base` that live no more; gives their names.
///
/// # Errors
/// When the program cannot be asked.
pub async fn remove_leftovers(program: &Path, base: &Path) -> Result<Vec<String>, ContainerError> {
    let filter = format!("label={LABEL}");
    let listed = ask(program, &["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).await?;
    let format = format!("{{{{.Name}}}} {{{{index .Config.Labels \"{LABEL}\"}}}}");
    let mut removed = Vec::new();
    for id in listed.split_whitespace() {
        // One that ended meanwhile cannot be asked any more.
        let Ok(told) = ask(program, &["inspect", "--format", &format, id]).await else { continue };
        let Some((name, folder)) = told.trim().split_once(' ') else { continue };
        let folder = Path::new(folder);
        let ours = folder.parent() == Some(base)
            && folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(SCRATCH_PREFIX.as_bytes()));
        if ours && !is_live(folder) {
            remove(program, id);
            removed.push(name.trim_start_matches('/').to_owned());
        }
    }
    Ok(removed)
}

/// The version of the server in an image.
///
/// # Errors
/// When the image is not there, or has no server.
pub async fn server_version(program: &Path, image: &str) -> Result<(u32, u32), ContainerError> {
    let quiet = ["run", "--rm", "--pull", "never", "--network", "none"];
    let args = [&quiet[..], &LIMITS, &["--entrypoint", "postgres", image, "--version"]].concat();
    let told = ask(program, &args).await?;
    // Whose version it is, the caller knows; that there is none is said with whatever was told.
    version(&told).ok_or_else(|| no_image(program, image, told.trim()))
}

impl Container {
    /// Looks up an image: it must be there, and hold a server of the wanted major version. `name` is the beginning of the
    /// containers' names, `scratch` the drill's folder.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub async fn find(
        program: &Path,
        image: &str,
        wanted: u32,
        scratch: &Path,
        name: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<(Self, Tools), ContainerError> {
        let owner = owner.ok_or(ContainerError::NoOwnUid)?;
        let id = image_id(program, image).await?;
        let (major, minor) = server_version(program, &id).await.map_err(|error| match error {
            ContainerError::NoImage { said, program, .. } => {
                ContainerError::NoImage { image: image.to_owned(), said, program }
            }
            other => other,
        })?;
        if major != wanted {
            let found = format!("PostgreSQL {major}");
            return Err(ContainerError::Version { image: image.to_owned(), found, wanted });
        }
        let container = Self {
            program: program.to_owned(),
            image: image.to_owned(),
            id,
            scratch: scratch.to_owned(),
            name: name.to_owned(),
            owner,
            made: AtomicU32::new(0),
        };
        // Without a folder their names are looked for where the image says.
        Ok((container, Tools { folder: PathBuf::new(), major, minor }))
    }

    /// What runs, for the report: the image's name, and what it meant.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("image {} ({})", self.image, self.id)
    }

    /// The uid that a server in it has.
    pub(super) fn uid(&self) -> u32 {
        self.owner.0
    }

    /// Runs a program of the image's over the folders, to its end. Ended before, the container ends with it.
    ///
    /// # Errors
    /// As [`Tool::run`].
    pub(super) async fn run(&self, tool: Tool, uid: u32, folders: &[PathBuf], dir: &Path) -> Result<Output, ToolError> {
        let name = format!("{}-{}", self.name, self.made.fetch_add(1, Ordering::SeqCst));
        let mut removal = Removal { program: &self.program, name: Some(&name) };
        let output = tool.behind(self.launcher(&name, uid, folders, dir)).current_dir("/").run().await;
        if output.as_ref().is_ok_and(|output| output.status.code().is_some()) {
            // It ended by itself, and is gone. (A signal would have ended the program in front of it alone.)
            removal.name = None;
        }
        output
    }

    /// Whether the folders can be named to the program.
    ///
    /// # Errors
    /// [`ContainerError::Path`].
    pub(super) fn must_show(folders: &[PathBuf]) -> Result<(), ContainerError> {
        match folders.iter().find(|folder| folder.to_str().is_none_or(|text| text.contains(':'))) {
            Some(folder) => Err(ContainerError::Path { path: folder.display().to_string() }),
            None => Ok(()),
        }
    }

    /// What stands before the program and its arguments.
    fn launcher(&self, name: &str, uid: u32, folders: &[PathBuf], dir: &Path) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![self.program.clone().into(), "run".into(), "--rm".into()];
        let mut option = |name: &str, value: OsString| argv.extend([name.into(), value]);
        option("--name", name.into());
        let mut label = OsString::from(format!("{LABEL}="));
        label.push(&self.scratch);
        option("--label", label);
        option("--pull", "never".into());
        option("--network", "none".into());
        // The uid of the confinement, on this machine too: it is nobody else's.
        option("--user", format!("{uid}:{}", self.owner.1).into());
        option("--userns", "host".into());
        option("--cap-drop", "ALL".into());
        option("--security-opt", "no-new-privileges".into());
        option("--log-driver", "none".into());
        option("--tmpfs", "/tmp".into());
        for folder in folders {
            let mut volume = folder.clone().into_os_string();
            volume.push(":");
            volume.push(folder);
            // For SELinux: the folder is this container's alone. Without it, it means nothing.
            volume.push(":Z");
            option("--volume", volume);
        }
        option("--workdir", dir.into());
        option("--env", "TZ=UTC".into());
        // Instead of what the image would do first; it finds the program where the image has it.
        option("--entrypoint", "env".into());
        argv.extend(LIMITS.map(OsString::from));
        argv.extend(["--read-only", &self.id].map(OsString::from));
        argv
    }
}

/// Removes a container, unless it ended by itself.
struct Removal<'a> {
    program: &'a Path,
    name: Option<&'a str>,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            remove(self.program, name);
        }
    }
}

/// Ends a container and removes it. What cannot be removed the next drill finds.
fn remove(program: &Path, name: &str) {
    let started = Command::new(program)
        .args(["rm", "--force", "--volumes", name])
        .env_clear()
        .env("PATH", TOOL_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else { return };
    let until = Instant::now() + REMOVE_LIMIT;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(REMOVE_LOOK);
    }
}

/// What an image's name means.
///
/// # Errors
/// When there is none of that name here.
pub async fn image_id(program: &Path, image: &str) -> Result<String, ContainerError> {
    let tool = Tool::new(program).args(["image", "inspect", "--format", "{{.Id}}", image]).current_dir("/");
    let output = tool.deadline(ASK_DEADLINE).run().await.map_err(|cause| failed(program, cause))?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || id.is_empty() {
        return Err(no_image(program, image, output.last_stderr_line().unwrap_or("it said nothing")));
    }
    Ok(id)
}

async fn ask(program: &Path, args: &[&str]) -> Result<String, ContainerError> {
    let tool = Tool::new(program).args(args.iter().map(|arg| (*arg).to_owned())).current_dir("/");
    let output = tool.deadline(ASK_DEADLINE).run_to_success().await.map_err(|cause| failed(program, cause))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failed(program: &Path, cause: ToolError) -> ContainerError {
    ContainerError::Tool { program: program.display().to_string(), cause }
}

fn no_image(program: &Path, image: &str, said: &str) -> ContainerError {
    ContainerError::NoImage { image: image.to_owned(), program: program.display().to_string(), said: said.to_owned() }
}
