//! What becomes of a library that an app wants: load, swap, and the end of the generation before.

use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task;
use tracing::{debug, error, info};

use super::{App, AskError, Done, Reloader, Reply, Retiring, State, Wanted, Why, control::tell};
use crate::plugin::{
    generation::{self, Generation},
    load::{self, Candidate, LoadError, Loaded, Order, Progress},
    report::{Failure, Proof},
    store::Hash,
};

impl Reloader {
    /// Resting or Probation → Loading.
    pub(super) fn start(&mut self, name: &'static str, wanted: Wanted) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let number = self.loads.entry(name).or_default();
        *number += 1;
        let generation = *number;
        let order = Order {
            name,
            spec: Arc::clone(&wanted.spec),
            generation,
            serving: app.serving.clone(),
            init_timeout: self.options.init_timeout,
            handover_timeout: self.options.handover_timeout,
            app_threads: self.options.app_threads,
            panic_limit: self.options.panic_limit,
            filter: self.filter.clone(),
        };
        let hash = wanted.spec.hash;
        debug!(plugin = name, generation, file = %wanted.candidate.path.display(), hash = hash.short(), "Loading");

        let (candidate, progress) = (Arc::clone(&wanted.candidate), Arc::new(Progress::new()));
        let loading = State::Loading {
            generation,
            wanted,
            progress: Arc::clone(&progress),
            next: None,
        };
        // Something newer comes: there is no going back to what was before the one that serves.
        if let State::Probation { kept: Some(kept) } = std::mem::replace(&mut app.state, loading) {
            self.retire(kept, self.options.graceful_timeout, None);
        }
        let (store, budget) = (Arc::clone(&self.store), Arc::clone(&self.budget));
        self.tasks.spawn(async move {
            let loaded = load::load(candidate, Arc::new(order), store, budget, progress).await;
            let loaded = Box::new(loaded);
            Done::Loaded {
                name,
                generation,
                loaded,
            }
        });
    }

    /// Loading → Probation or Resting.
    pub(super) fn loaded(
        &mut self,
        name: &'static str,
        generation: u64,
        loaded: Result<Loaded, LoadError>,
    ) {
        let is_it = |app: &&mut App| matches!(app.state, State::Loading { generation: loading, .. } if loading == generation);
        let Some(app) = self.apps.get_mut(name).filter(is_it) else {
            // The library went away meanwhile.
            if let Ok(loaded) = loaded {
                self.retire(
                    Arc::new(loaded.generation),
                    self.options.graceful_timeout,
                    None,
                );
            }
            return;
        };
        let State::Loading { wanted, next, .. } = std::mem::replace(&mut app.state, State::Resting)
        else {
            return;
        };
        match loaded {
            Ok(loaded) => self.swap(name, wanted, loaded),
            Err(error) => {
                let Candidate { path, .. } = &*wanted.candidate;
                self.failed(name, path, Some(wanted.spec.hash), &error);
                tell(wanted.reply, Err(AskError::Failed(error)));
            }
        }
        if let Some(next) = next {
            self.want(name, next);
        }
    }

    /// The new generation gets the requests from here on.
    fn swap(&mut self, name: &'static str, wanted: Wanted, loaded: Loaded) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let Loaded {
            generation,
            mut took,
            paused,
        } = loaded;
        let generation = Arc::new(generation);
        let moved = app.mounts != generation.spec.mounts;
        app.mounts.clone_from(&generation.spec.mounts);
        let began = Instant::now();
        app.serving = Some(Arc::clone(&generation));
        let before = self
            .registry
            .publish(name, app.mounts.clone(), Some(Arc::clone(&generation)));
        took.swap = began.elapsed();
        app.took = Some(took);

        app.last_error = None;
        app.rejected = before
            .as_ref()
            .filter(|_| wanted.why == Why::Rollback)
            .map(|before| Arc::clone(&before.spec));
        if let Some(before) = before
            .as_ref()
            .filter(|before| before.spec.hash != generation.spec.hash)
        {
            app.previous = Some(before.copy.clone());
        }
        info!(
            plugin = name,
            version = generation.version,
            generation = generation.number,
            replaces = before.as_ref().map(|before| before.number),
            hash = generation.spec.hash.short(),
            mount = app.mounts.join(","),
            max_level = generation.max_level,
            file = %wanted.candidate.path.display(),
            took = ?took.total(),
            "{}", if wanted.why == Why::Rollback { "Rolled back" } else { "Loaded" }
        );

        let proof = Proof {
            name,
            old_generation: before.as_ref().map(|before| before.number),
            new_generation: generation.number,
            version: generation.version.clone(),
            hash: generation.spec.hash.to_string(),
            took,
            in_flight_at_swap: before.as_ref().map_or(0, |before| before.app.in_flight()),
            drained: None,
            failed: 0,
        };
        let asked = wanted.reply.map(|reply| (reply, proof));
        match before {
            Some(before) if wanted.why != Why::Rollback && self.options.probation.is_some() => {
                // After a handover its state is old.
                let kept = paused.is_none().then(|| Arc::clone(&before));
                self.watch(name, &generation, Arc::clone(&before), kept.clone());
                match kept {
                    None => self.retire(before, self.options.graceful_timeout, asked),
                    Some(kept) => {
                        // It keeps no client from the new one.
                        task::spawn_blocking(move || kept.app.drain());
                        tell_proof(asked);
                    }
                }
            }
            Some(before) => self.retire(before, self.options.graceful_timeout, asked),
            None => tell_proof(asked),
        }
        // After the one before was closed, so that no request gets into it any more.
        drop(paused);
        if moved {
            self.look_again();
        }
    }

    /// Ends a generation that the registry does not name any more.
    pub(super) fn retire(
        &mut self,
        generation: Arc<Generation>,
        patience: Duration,
        asked: Option<(Reply, Proof)>,
    ) {
        generation.app.close();
        self.retiring.push(Retiring {
            generation: Arc::clone(&generation),
            since: Instant::now(),
        });
        self.retirements.spawn(async move {
            let retired = Arc::clone(&generation).retire(patience).await;
            Done::Retired {
                generation,
                retired,
                asked,
            }
        });
    }

    pub(super) fn retired(
        &mut self,
        generation: &Arc<Generation>,
        retired: generation::Retired,
        asked: Option<(Reply, Proof)>,
    ) {
        self.retiring
            .retain(|retiring| !Arc::ptr_eq(&retiring.generation, generation));
        let copies = self.ended.entry(generation.name).or_default();
        copies.insert(generation.copy.clone());
        if let Some((reply, mut proof)) = asked {
            proof.drained = Some(retired.drained);
            proof.failed = retired.cut;
            tell(Some(reply), Ok(proof));
        }
    }

    /// Says why an app was not loaded: what serves, serves on.
    pub(super) fn failed(
        &mut self,
        name: &'static str,
        path: &Path,
        hash: Option<Hash>,
        error: &LoadError,
    ) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let failure = Failure::new(path, hash, error);
        let serving = app.serving.as_ref().map(|serving| serving.number);
        error!(
            plugin = name,
            file = failure.file,
            hash = failure.hash,
            step = failure.step,
            error = error as &dyn Error,
            serving,
            "{}",
            if serving.is_some() {
                "Not loaded, the generation before serves on"
            } else {
                "Not loaded"
            }
        );
        app.last_error = Some(failure);
    }
}

fn tell_proof(asked: Option<(Reply, Proof)>) {
    if let Some((reply, proof)) = asked {
        tell(Some(reply), Ok(proof));
    }
}
