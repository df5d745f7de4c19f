//! The supervisor's part of an upgrade in place: checks whether an upgrade is possible now, hands the state over, and
//! takes over the state of an earlier image.
//!
//! An upgrade is refused while a load or a recycling is under way, or while a worker is missing. So the handover need
//! not describe an app or a worker in the middle of a change.

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
    control_socket::SocketFile,
    error_chain::chain,
};

/// The reply channel of an upgrade. The reply is the name of the new build after that build has given its proof, or the
/// reason why the upgrade is refused. The result of the exec cannot be reported, because a successful exec ends this
/// image.
pub(super) type UpgradeReply = oneshot::Sender<Result<String, String>>;

impl Supervisor {
    /// Stores the control socket. An upgrade hands the socket to the next image.
    pub fn set_control_socket(&mut self, control: Option<Arc<SocketFile>>) {
        self.control_socket = control;
    }

    /// Begins an upgrade to the build at `path`, or at the path of this program if `path` is `None`. That build must
    /// first prove in a separate process that it can take over.
    pub(super) fn upgrade(&mut self, path: Option<PathBuf>, reply: UpgradeReply) {
        let (spawner, obstacle) = match (&self.spawner, self.upgrade_obstacle()) {
            (None, _) => (
                None,
                Some("the host is one process (--workers=0), which cannot be upgraded in place"),
            ),
            (Some(spawner), obstacle) => (Some(spawner), obstacle),
        };
        let path = path.map_or_else(program_path, Ok);
        let (Some(spawner), Ok(path), None) = (spawner, path, obstacle) else {
            let reason =
                obstacle.unwrap_or("the path of this program is not known, expected a PATH");
            return refuse(reply, reason.to_owned());
        };
        info!(
            file = %path.display(),
            build = spawner.executable.build(),
            "Upgrade requested, checking the other build"
        );
        let children = spawner.children.clone();
        let hello = spawner.hello();
        let state = self.with_handover(|handover, _| serde_json::to_vec(handover));
        let state = match state.and_then(|state| state.map_err(UpgradeError::State)) {
            Ok(state) => state,
            Err(error) => return refuse(reply, chain(&error)),
        };
        self.tasks.spawn(async move {
            let args: Vec<_> = env::args_os().skip(1).collect();
            let proof =
                upgrade::prove(&children, &path, &args, &hello, &state, PROOF_TIMEOUT).await;
            TaskOutcome::ProofFinished { path, proof, reply }
        });
    }

    /// Returns the reason why an upgrade is not possible now, or `None` if an upgrade is possible.
    fn upgrade_obstacle(&self) -> Option<&'static str> {
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

    /// Handles the result of the proof. On success, answers the operator and schedules the exec of the new build.
    pub(super) fn proof_finished(
        &mut self,
        path: &Path,
        proof: Result<Hello, ProofError>,
        reply: UpgradeReply,
    ) {
        let theirs = match proof {
            Ok(theirs) => theirs,
            Err(error) => return refuse(reply, chain(&error)),
        };
        // Checked again, because the state may have changed during the proof.
        if let Some(obstacle) = self.upgrade_obstacle() {
            return refuse(reply, obstacle.to_owned());
        }
        info!(file = %path.display(), build = theirs.build, "Upgrading");
        // The answer must reach the operator before the exec ends this image, so the exec is delayed.
        let _ = reply.send(Ok(theirs.build));
        let path = path.to_owned();
        self.tasks.spawn(async move {
            tokio::time::sleep(EXEC_DELAY).await;
            TaskOutcome::ExecuteUpgrade(path)
        });
    }

    /// Executes the new build. Returns only if the upgrade is not possible any more or the exec fails. After a failure
    /// this build continues to serve.
    pub(super) fn execute(&mut self, path: &Path) {
        // Checked again, because the state may have changed while the answer was sent.
        if let Some(obstacle) = self.upgrade_obstacle() {
            error!(file = %path.display(), error = obstacle, "Not upgraded, this build continues to run");
            return;
        }
        systemd::reloading();
        match self.hand_over(path) {
            Ok(never) => match never {},
            Err(error) => {
                // Ends the state that `reloading` has announced.
                systemd::ready();
                error!(
                    file = %path.display(),
                    error = chain(&error),
                    "Not upgraded, this build continues to run"
                );
            }
        }
    }

    /// Hands the state over to the build at `path`. Does not return on success.
    fn hand_over(&mut self, path: &Path) -> Result<Infallible, UpgradeError> {
        self.with_handover(|handover, packing| {
            let args: Vec<OsString> = env::args_os().collect();
            upgrade::exec(path, &args, handover, packing)
        })?
    }

    /// Returns the number of loads of each removed app, also of those that an earlier image of this process removed.
    fn loads_of_removed_apps(&self) -> BTreeMap<String, u64> {
        let mut loads = self.loads_before_upgrade.clone();
        let removed = self.removed.iter();
        loads.extend(removed.map(|(name, app)| (name.clone(), app.loads)));
        loads
    }

    /// Calls `work` with the state and the descriptors for the next image. While `work` runs, no bytes are read from
    /// the workers or written to them.
    ///
    /// # Errors
    ///
    /// When the server has no worker processes, the channel to a worker is not open yet, or no descriptor is available.
    fn with_handover<T>(
        &self,
        work: impl FnOnce(&Handover, &Packing<'_>) -> T,
    ) -> Result<T, UpgradeError> {
        let missing = || UpgradeError::Receive(io::ErrorKind::NotFound.into());
        let spawner = self.spawner.as_ref().ok_or_else(missing)?;
        let (mut store, lock) = self.store.suspend()?;
        let open_links = self.fleet.open_links().ok_or_else(missing)?;
        // From here on no channel and no pipe is read or written. Bytes that this image reads after the snapshot would
        // be lost by the exec.
        let frozen_links: Vec<_> = open_links
            .iter()
            .map(|link| (link, link.channel.freeze(), link.output.freeze()))
            .collect();
        let mut packing = Packing::default();
        store.lock = packing.put(&lock);
        let handover = Handover {
            build: spawner.executable.build().to_owned(),
            listeners: spawner
                .listeners
                .iter()
                .map(|listener| packing.put(listener))
                .collect(),
            control: self
                .control_socket
                .as_ref()
                .map(|control| control.suspend(&mut packing)),
            store,
            level: spawner.filter.directives().to_string(),
            workers: frozen_links
                .iter()
                .map(|(link, channel, words)| WorkerSnapshot {
                    id: link.id,
                    pid: link.pid,
                    channel: channel.suspend(&mut packing),
                    words: words.suspend(&mut packing),
                    opened: link.opened.clone(),
                })
                .collect(),
            last_worker: self.fleet.last_id(),
            wanted_workers: self.wanted_workers,
            apps: self.apps.values().map(AppSnapshot::of).collect(),
            loads: self.loads_of_removed_apps(),
        };
        Ok(work(&handover, &packing))
    }

    /// Takes over apps and workers from an earlier image of this process, and then recycles all workers, because they
    /// still run the earlier build.
    pub fn take_over(
        &mut self,
        spawner: WorkerSpawner,
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
            .map(|app| app.into_app(self.uses_probation))
            .map(|app| (app.name.clone(), app))
            .collect();
        self.loads_before_upgrade = loads;
        let mut links = BTreeMap::new();
        for state in states {
            let (id, opened) = (state.id, state.opened.clone());
            match spawner.resume(state, &mut descriptors) {
                Ok(link) => {
                    links.insert(id, (link, opened));
                }
                // The worker exits, because the dropped descriptor closes its channel.
                Err(error) => {
                    let error = chain(&error);
                    error!(worker = id, error, "A worker is lost in the upgrade");
                }
            }
        }
        info!(
            from = build,
            to = spawner.executable.build(),
            workers = links.len(),
            "Upgraded in place"
        );
        // Before `start_workers`, so that only missing workers are started.
        self.fleet.adopt(links, last_worker);
        self.start_workers(spawner, wanted_workers);
        // No operator waits for this recycling.
        let (reply, _) = oneshot::channel();
        self.recycle_workers(self.fleet.ready_workers(), RecycleReason::Upgrade, reply);
        // The workers of the earlier image serve already.
        self.is_ready = true;
        systemd::ready();
    }
}

/// Logs why an upgrade is refused, and sends the reason to the operator.
fn refuse(reply: UpgradeReply, reason: String) {
    warn!(error = reason, "Not upgraded, this build continues to run");
    // The requester may have disconnected.
    let _ = reply.send(Err(reason));
}

/// Returns the path from which this program was started. The file at that path may be another build by now.
fn program_path() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    // The kernel appends " (deleted)" to the path if the file was replaced or removed (proc_pid_exe(5)).
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(OsString::from_vec(bytes.to_vec()).into())
}

/// How long the new build may take to give its proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the exec is delayed so that the answer reaches the operator.
const EXEC_DELAY: Duration = Duration::from_millis(50);
