use std::time::{Duration, SystemTime};

use super::*;
use crate::fuzz::Random;

const WORKERS: [WorkerId; 2] = [1, 2];

fn spec(content: &str) -> Arc<Spec> {
    Arc::new(Spec {
        hash: ContentHash::of(content.as_bytes()),
        mounts: vec![Arc::from("/shop")],
        config: None,
    })
}

fn request(content: &str, reason: LoadReason) -> LoadRequest {
    LoadRequest {
        spec: spec(content),
        source: LibrarySource::File("libshop.so".into()),
        reason,
        reply_id: None,
    }
}

fn failure() -> LoadFailure {
    LoadFailure {
        file: "libshop.so".to_owned(),
        hash: None,
        step: "init".to_owned(),
        error: "no database".to_owned(),
        at: SystemTime::UNIX_EPOCH,
    }
}

const REPORT: LoadReport = LoadReport {
    timings: StepTimings::NONE,
    handed_over: false,
    hands_over: false,
};

/// An app to which the tests send events.
struct Driven(App);

impl Driven {
    fn new(uses_probation: bool) -> Self {
        let (name, library) = ("shop".to_owned(), "libshop.so".into());
        Self(App::new(name.clone(), name, library, 0, uses_probation))
    }

    /// Returns the number of the generation that is being loaded.
    fn loading_generation(&self) -> Option<u64> {
        self.0.loading().map(|loading| loading.generation)
    }

    fn staged(&self) -> StagedGeneration {
        let loading = self.0.loading().expect("a load is under way");
        StagedGeneration {
            app: "shop".to_owned(),
            generation: loading.generation,
            copy: format!("shop.g{}.so", loading.generation).into(),
            spec: Arc::clone(&loading.request.spec),
            version: "0.1.0".to_owned(),
            max_level: None,
        }
    }

    fn request_load(&mut self, content: &str, reason: LoadReason) {
        self.0.request_load(request(content, reason));
    }

    fn prepared(&mut self) -> Vec<AppAction> {
        let staged = self.staged();
        self.0.prepared(staged, StepTimings::NONE, &WORKERS, true)
    }

    fn loaded(&mut self, worker: WorkerId) -> Vec<AppAction> {
        let generation = self.loading_generation().unwrap_or_default();
        self.0.loaded(worker, generation, REPORT, &WORKERS)
    }

    fn swapped(&mut self, worker: WorkerId) -> Vec<AppAction> {
        let generation = self.loading_generation().unwrap_or_default();
        self.0.swapped(worker, generation, Duration::ZERO, 0)
    }

    fn fails(&mut self) -> Vec<AppAction> {
        let generation = self.loading_generation().unwrap_or_default();
        self.0.load_failed(generation, failure())
    }

    /// Loads and commits a version in all workers.
    fn load(&mut self, content: &str) {
        self.request_load(content, LoadReason::Changed);
        self.prepared();
        self.loaded(1);
        self.loaded(2);
        assert!(self.0.commit().is_some());
        self.swapped(1);
        self.swapped(2);
    }

    fn serves(&self) -> Option<u64> {
        self.0.serving.as_ref().map(|serving| serving.generation)
    }
}

/// Returns the workers that get an order to load a generation.
fn workers_ordered_to_load(actions: &[AppAction]) -> Vec<WorkerId> {
    let worker = |action: &AppAction| match action {
        AppAction::Send(Some(worker), Order::Load { .. }) => Some(*worker),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

fn has_order(actions: &[AppAction], is: impl Fn(&Order) -> bool) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, AppAction::Send(_, order) if is(order)))
}

#[test]
fn the_second_worker_starts_a_version_when_the_first_one_has_and_all_swap_together() {
    let mut app = Driven::new(false);
    app.request_load("v1", LoadReason::Changed);
    assert_eq!(workers_ordered_to_load(&app.prepared()), [1]);
    assert!(app.0.commit().is_none());
    assert_eq!(workers_ordered_to_load(&app.loaded(1)), [2]);
    assert!(app.0.commit().is_none());
    let actions = app.loaded(2);
    assert!(matches!(actions[..], [AppAction::Commit]));
    assert!(app.0.commit().is_some());
    app.swapped(1);
    assert_eq!(app.serves(), None);
    app.swapped(2);
    assert_eq!(app.serves(), Some(1));
}

#[test]
fn a_version_that_fails_in_the_second_worker_serves_nowhere() {
    let mut app = Driven::new(false);
    app.load("v1");
    app.request_load("v2", LoadReason::Changed);
    app.prepared();
    app.loaded(1);
    let actions = app.fails();
    assert!(has_order(&actions, |order| matches!(
        order,
        Order::Discard { generation: 2, .. }
    )));
    assert_eq!(app.serves(), Some(1));
    assert!(app.0.last_error.is_some());
    // The number of the failed load is not used again.
    app.load("v3");
    assert_eq!(app.serves(), Some(3));
}

#[test]
fn a_load_that_fails_does_not_end_the_probation_of_what_serves() {
    let mut app = Driven::new(true);
    app.load("v1");
    app.load("v2");
    assert!(app.0.probation().is_some());
    app.request_load("v3", LoadReason::Changed);
    app.prepared();
    // The verdict takes effect only after the load, because a successful load would replace both generations.
    app.0.probation_ended(1, 2, Some((5, 6)));
    assert_eq!(app.serves(), Some(2));
    let actions = app.fails();
    assert!(has_order(&actions, |order| matches!(
        order,
        Order::Settle { back: true, .. }
    )));
    assert_eq!(app.serves(), Some(1));
    // The content that was rolled back is not loaded again, although its configuration has changed.
    let mut other = (*spec("v2")).clone();
    other.config = Some(Arc::from("{}"));
    let again = LoadRequest {
        spec: Arc::new(other),
        ..request("v2", LoadReason::Changed)
    };
    assert!(app.0.request_load(again).is_empty());
    assert_eq!(app.loading_generation(), None);
}

#[test]
fn a_version_passes_its_probation_in_all_workers_or_not_at_all() {
    let mut app = Driven::new(true);
    app.load("v1");
    app.load("v2");
    assert!(app.0.probation_ended(1, 2, None).is_empty());
    let actions = app.0.probation_ended(2, 2, None);
    assert!(has_order(&actions, |order| matches!(
        order,
        Order::Settle { back: false, .. }
    )));
    let good = app.0.last_good.as_ref().map(|good| good.generation);
    assert_eq!((app.serves(), good), (Some(2), Some(2)));
}

#[test]
fn a_crash_puts_a_version_aside_and_the_one_before_is_started_again() {
    let mut app = Driven::new(false);
    app.load("v1");
    app.0.mark_good(1);
    app.load("v2");
    let hash = spec("v2").hash;
    let actions = app.0.put_aside(2, hash, failure());
    assert!(has_order(&actions, |order| matches!(
        order,
        Order::Suspend { .. }
    )));
    assert_eq!(app.serves(), None);
    app.prepared();
    app.loaded(1);
    app.loaded(2);
    app.0.commit();
    app.swapped(1);
    app.swapped(2);
    assert_eq!(app.serves(), Some(3));
    let serving = app.0.serving.as_ref().map(|serving| serving.spec.hash);
    assert_eq!(serving, Some(spec("v1").hash));
    // The file still exists, but is not loaded until it changes or an operator requests a load.
    assert!(
        app.0
            .request_load(request("v2", LoadReason::Changed))
            .is_empty()
    );
    app.request_load("v2", LoadReason::Reload);
    assert_eq!(app.loading_generation(), Some(4));
}

#[test]
fn a_load_whose_worker_is_gone_starts_again_in_the_next_one() {
    let mut app = Driven::new(false);
    app.request_load("v1", LoadReason::Changed);
    app.prepared();
    app.0.remove_worker(1);
    assert_eq!(workers_ordered_to_load(&app.0.start_in(3)), [3]);
    app.0.loaded(3, 1, REPORT, &[3]);
    assert!(app.0.commit().is_some());
    app.swapped(3);
    assert_eq!(app.serves(), Some(1));
}

#[test]
fn a_commit_is_done_when_the_workers_that_are_left_have_swapped() {
    let mut app = Driven::new(false);
    app.request_load("v1", LoadReason::Changed);
    app.prepared();
    app.loaded(1);
    app.loaded(2);
    app.0.commit();
    app.swapped(1);
    app.0.remove_worker(2);
    assert_eq!(app.serves(), Some(1));
}

#[test]
fn a_generation_that_ends_in_one_worker_before_the_other_has_swapped_is_not_waited_for() {
    for is_killed in [false, true] {
        let mut app = Driven::new(false);
        app.load("v1");
        let reply = LoadRequest {
            reply_id: Some(7),
            ..request("v2", LoadReason::Reload)
        };
        app.0.request_load(reply);
        app.prepared();
        app.loaded(1);
        app.loaded(2);
        app.0.commit();
        app.swapped(1);
        app.0.retired(1, 1, Duration::from_millis(5), 3);
        let mut actions = if is_killed {
            app.0.remove_worker(2)
        } else {
            app.swapped(2)
        };
        if !is_killed {
            assert!(actions.is_empty(), "the second worker drains: {actions:?}");
            actions = app.0.retired(2, 1, Duration::from_millis(2), 1);
        }
        let [AppAction::Answer(7, Ok(proof))] = &*actions else {
            panic!("who asked is told: {actions:?}");
        };
        assert_eq!(proof.drained, Some(Duration::from_millis(5)));
        assert_eq!(proof.failed, if is_killed { 3 } else { 4 });
    }
}

#[test]
fn whatever_happens_what_serves_stays_until_something_else_does() {
    // Sends random events with a fixed seed. A serving generation ends only because of a new one, a crash or a removal;
    // generation numbers only grow; every load ends.
    let mut random = Random::new(11);
    let mut next = |below: u64| random.below(below as usize) as u64;
    for uses_probation in [false, true] {
        let mut app = Driven::new(uses_probation);
        let mut highest = 0;
        for _ in 0..20_000 {
            let before = app.serves();
            let mut may_end = false;
            let worker = WORKERS[next(2) as usize];
            let content = ["v1", "v2", "v3", "v4"][next(4) as usize];
            match next(12) {
                0 => app.request_load(content, LoadReason::Changed),
                1 => app.request_load(content, LoadReason::Reload),
                2..=4 if app.0.loading().is_some_and(|it| it.rollout().is_none()) => {
                    app.prepared();
                }
                5 | 6 => {
                    app.loaded(worker);
                }
                7 => {
                    app.0.commit();
                }
                8 => {
                    app.swapped(worker);
                }
                9 if !matches!(
                    app.0.loading().map(|loading| &loading.phase),
                    Some(LoadPhase::Committing { .. })
                ) =>
                {
                    app.fails();
                }
                10 => {
                    let failed = (next(2) == 0).then_some((9, 9));
                    app.0
                        .probation_ended(worker, before.unwrap_or_default(), failed);
                }
                11 if next(20) == 0 => {
                    if let Some(serving) = app.0.serving.clone() {
                        may_end = true;
                        let (generation, hash) = (serving.generation, serving.spec.hash);
                        app.0.put_aside(generation, hash, failure());
                    }
                }
                _ => {}
            }
            assert!(app.serves().is_some() || before.is_none() || may_end);
            highest = highest.max(app.0.loads);
            assert_eq!(app.0.loads, highest);
            assert!(app.serves() <= Some(highest));
            let way = app.loading_generation();
            assert!(way.is_none() || way > app.serves() || app.0.probation().is_some());
        }
        assert!(highest > 500, "{highest}");
    }
}
