//! The supervisor's part of an upgrade in place: checks that it is possible now, hands its state over, and
//! takes over the state of an earlier image.
//!
//! An upgrade is refused while a load or a recycling is under way or a worker is missing. The handover then
//! only has to describe apps and workers at rest.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env,
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    Supervisor, TaskOutcome,
    handover::{AppSnapshot, Handover, WorkerSnapshot},
    recycle::RecycleReason,
    systemd,
    upgrade::{self, ProofError, UpgradeError},
    workers::WorkerSpawner,
};
use crate::{
    channel::{Hello, Packing, Unpacking},
    control::socket::SocketFile,
    error_chain::chain,
};

/// The reply channel of an upgrade. It gets the name of the new build once that build has proved itself, or
/// the reason why not. It cannot report the exec itself, because this image is gone by then.
pub(super) type UpgradeReply = oneshot::Sender<Result<String, String>>;

impl Supervisor {
    /// Keeps the control socket, to be handed to the next image.
    pub fn keep_control(&mut self, control: Option<Arc<SocketFile>>) {
        self.control = control;
    }

    /// Begins an upgrade: the build at `path` must prove in a process of its own that it can take over.
    pub(super) fn upgrade(&mut self, path: Option<PathBuf>, reply: UpgradeReply) {
        let (workers, why_not) = match (&self.spawner, self.why_not_now()) {
            (None, _) => (
                None,
                Some("the host is one process (--workers=0), which cannot be upgraded in place"),
            ),
            (Some(workers), why_not) => (Some(workers), why_not),
        };
        let path = path.map_or_else(program, Ok);
        let (Some(workers), Ok(path), None) = (workers, path, why_not) else {
            let why = why_not.unwrap_or("the path of this program is not known, expected a PATH");
            return refuse(reply, why.to_owned());
        };
        info!(
            file = %path.display(),
            build = workers.executable.build(),
            "Asked to upgrade: the other build proves itself first"
        );
        let children = workers.children.clone();
        let hello = workers.hello();
        let state = self.with_handover(|handover, _| serde_json::to_vec(handover));
        let state = match state.and_then(|state| state.map_err(UpgradeError::State)) {
            Ok(state) => state,
            Err(error) => return refuse(reply, chain(&error)),
        };
        self.tasks.spawn(async move {
            let args: Vec<_> = env::args_os().skip(1).collect();
            let proved = upgrade::prove(&children, &path, &args, &hello, &state, PROOF).await;
            TaskOutcome::Upgrade {
                path,
                proved,
                reply,
            }
        });
    }

    /// Returns why an upgrade is not possible at the moment.
    fn why_not_now(&self) -> Option<&'static str> {
        if self.apps.values().any(|app| app.loading().is_some()) {
            Some("an app is being loaded; try again when it is")
        } else if self.recycling.current.is_some() {
            Some("a worker is being recycled; try again when it is")
        } else if !self.fleet.is_steady(self.wanted_workers) {
            Some("not all workers serve; try again when they do")
        } else {
            None
        }
    }

    /// Handles the result of the proof. On success answers the operator, and executes the new build soon after.
    pub(super) fn proved(
        &mut self,
        path: &Path,
        proved: Result<Hello, ProofError>,
        reply: UpgradeReply,
    ) {
        let theirs = match proved {
            Ok(theirs) => theirs,
            Err(error) => return refuse(reply, chain(&error)),
        };
        if let Some(why_not) = self.why_not_now() {
            return refuse(reply, why_not.to_owned());
        }
        info!(file = %path.display(), build = theirs.build, "Upgrading");
        // The answer must reach the operator before this image ends, so the exec is delayed by [`ANSWER`].
        let _ = reply.send(Ok(theirs.build));
        let path = path.to_owned();
        self.tasks.spawn(async move {
            tokio::time::sleep(ANSWER).await;
            TaskOutcome::Execute(path)
        });
    }

    /// Executes the new build. Returns only if that fails; this build goes on then.
    pub(super) fn execute(&mut self, path: &Path) {
        if let Some(why_not) = self.why_not_now() {
            error!(file = %path.display(), error = why_not, "Not upgraded, this build goes on");
            return;
        }
        systemd::reloading();
        match self.hand_over(path) {
            Ok(never) => match never {},
            Err(error) => {
                systemd::ready();
                error!(
                    file = %path.display(),
                    error = chain(&error),
                    "Not upgraded, this build goes on"
                );
            }
        }
    }

    fn hand_over(&mut self, path: &Path) -> Result<Infallible, UpgradeError> {
        self.with_handover(|handover, packing| {
            let args: Vec<OsString> = env::args_os().collect();
            upgrade::exec(path, &args, handover, packing)
        })?
    }

    /// Runs `work` with all that the next image needs, while nothing is read from the workers or written
    /// to them.
    fn with_handover<T>(
        &self,
        work: impl FnOnce(&Handover, &Packing<'_>) -> T,
    ) -> Result<T, UpgradeError> {
        let not_there = || UpgradeError::Receive(io::ErrorKind::NotFound.into());
        let workers = self.spawner.as_ref().ok_or_else(not_there)?;
        let (mut store, lock) = self.store.suspend()?;
        let open_links = self.fleet.open_links().ok_or_else(not_there)?;
        // From here on no channel and no pipe is read or written, so that nothing is lost by an exec.
        let frozen: Vec<_> = open_links
            .iter()
            .map(|way| (way, way.channel.freeze(), way.words.freeze()))
            .collect();
        let mut packing = Packing::default();
        store.lock = packing.put(&lock);
        let handover = Handover {
            build: workers.executable.build().to_owned(),
            listeners: workers
                .listeners
                .iter()
                .map(|listener| packing.put(listener))
                .collect(),
            control: self
                .control
                .as_ref()
                .map(|control| control.suspend(&mut packing)),
            store,
            level: workers.filter.directives().to_string(),
            workers: frozen
                .iter()
                .map(|(way, channel, words)| WorkerSnapshot {
                    id: way.id,
                    pid: way.pid,
                    channel: channel.suspend(&mut packing),
                    words: words.suspend(&mut packing),
                    opened: way.opened.clone(),
                })
                .collect(),
            last_worker: self.fleet.last_id(),
            wanted_workers: self.wanted_workers,
            apps: self.apps.values().map(AppSnapshot::of).collect(),
            loads: self
                .removed
                .iter()
                .map(|(name, app)| (name.clone(), app.loads))
                .collect(),
        };
        Ok(work(&handover, &packing))
    }

    /// Takes over apps and workers from an earlier image of this process, and then recycles all workers, so
    /// that they have this build.
    pub fn go_on(
        &mut self,
        workers: WorkerSpawner,
        handover: Handover,
        mut descriptors: Unpacking,
    ) {
        let Handover {
            build,
            workers: states,
            last_worker,
            wanted_workers,
            apps,
            loads,
            ..
        } = handover;
        self.apps = apps
            .into_iter()
            .map(|app| app.into_app(self.watches))
            .map(|app| (app.name.clone(), app))
            .collect();
        self.loads_before = loads;
        let mut links = BTreeMap::new();
        for state in states {
            let (id, opened) = (state.id, state.opened.clone());
            match workers.resume(state, &mut descriptors) {
                Ok(link) => {
                    links.insert(id, (link, opened));
                }
                // The dropped descriptor closes the channel, so the worker exits.
                Err(error) => {
                    let error = chain(&error);
                    error!(worker = id, error, "A worker is lost in the upgrade");
                }
            }
        }
        info!(
            from = build,
            to = workers.executable.build(),
            workers = links.len(),
            "Upgraded in place"
        );
        self.fleet.adopt(links, last_worker);
        self.start_workers(workers, wanted_workers);
        let (reply, _) = oneshot::channel();
        self.recycle_these(self.fleet.ready_workers(), RecycleReason::Upgrade, reply);
        self.is_ready = true;
        systemd::ready();
    }
}

fn refuse(reply: UpgradeReply, why: String) {
    warn!(error = why, "Not upgraded, this build goes on");
    // The requester may have disconnected.
    let _ = reply.send(Err(why));
}

/// Returns the path that this program was started from. Another build may be there by now.
fn program() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    // The kernel appends this to the path of a file that was replaced or removed (proc_pid_exe(5)).
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(OsString::from_vec(bytes.to_vec()).into())
}

/// How long the new build may take for its proof.
const PROOF: Duration = Duration::from_secs(20);

/// How long the exec is delayed so that the answer reaches the operator.
const ANSWER: Duration = Duration::from_millis(50);
