//! Questions that the workers answer: what each of them has, and whether a level is in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{sync::oneshot, time};

use super::{
    Done, Supervisor,
    app::WorkerId,
    report::{self, Known, Report},
    roster::Roster,
};
use crate::orders::{Order, WorkerReport};

/// Questions that workers have not answered yet.
#[derive(Debug, Default)]
pub(super) struct Asking {
    last: u64,
    reports: BTreeMap<u64, Reporting>,
    levels: BTreeMap<u64, Setting>,
}

#[derive(Debug)]
struct Reporting {
    waiting: BTreeSet<WorkerId>,
    reports: Vec<(WorkerId, WorkerReport)>,
    reply: ReportTo,
}

/// Who wants the reports of the workers, and for what.
#[derive(Debug)]
pub(super) enum ReportTo {
    /// For the list of the apps.
    Apps(oneshot::Sender<Report>),
    /// For the list of the workers.
    Workers(oneshot::Sender<Roster>),
}

#[derive(Debug)]
struct Setting {
    waiting: BTreeSet<WorkerId>,
    /// The libraries that did not confirm in time.
    unconfirmed: BTreeSet<String>,
    reply: oneshot::Sender<Vec<String>>,
}

impl Supervisor {
    /// Asks all workers what they have. The answer is made when all have told, or after
    /// [`REPORT_PATIENCE`].
    pub(super) fn ask_report(&mut self, reply: ReportTo) {
        self.asking.last += 1;
        let number = self.asking.last;
        let waiting: BTreeSet<_> = self.fleet.taking_part().into_iter().collect();
        self.fleet.send_all(&Order::Report { number });
        let reporting = Reporting {
            waiting,
            reports: Vec::new(),
            reply,
        };
        self.asking.reports.insert(number, reporting);
        self.tasks.spawn(async move {
            time::sleep(REPORT_PATIENCE).await;
            Done::ReportTimedOut(number)
        });
        self.report_if_complete(number);
    }

    pub(super) fn reported(&mut self, worker: WorkerId, number: u64, report: WorkerReport) {
        if let Some(reporting) = self.asking.reports.get_mut(&number) {
            reporting.waiting.remove(&worker);
            reporting.reports.push((worker, report));
        }
        self.report_if_complete(number);
    }

    /// A worker did not answer in time: the report is of those that did.
    pub(super) fn report_timed_out(&mut self, number: u64) {
        if let Some(reporting) = self.asking.reports.get_mut(&number) {
            reporting.waiting.clear();
        }
        self.report_if_complete(number);
    }

    /// A worker is gone, and will not answer.
    pub(super) fn forget_asked(&mut self, worker: WorkerId) {
        for number in self.asking.reports.keys().copied().collect::<Vec<_>>() {
            if let Some(reporting) = self.asking.reports.get_mut(&number) {
                reporting.waiting.remove(&worker);
            }
            self.report_if_complete(number);
        }
        for number in self.asking.levels.keys().copied().collect::<Vec<_>>() {
            self.in_force(worker, number, Vec::new());
        }
    }

    fn report_if_complete(&mut self, number: u64) {
        let reporting = self.asking.reports.get(&number);
        if reporting.is_none_or(|reporting| !reporting.waiting.is_empty()) {
            return;
        }
        let Some(reporting) = self.asking.reports.remove(&number) else {
            return;
        };
        match reporting.reply {
            ReportTo::Apps(reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.app_report(&reporting.reports));
            }
            ReportTo::Workers(reply) => self.tell_roster(&reporting.reports, reply),
        }
    }

    fn app_report(&self, reports: &[(WorkerId, WorkerReport)]) -> Report {
        let mut apps: Vec<_> = self.apps.values().map(|app| (app, false)).collect();
        apps.extend(self.removed.values().map(|app| (app, true)));
        apps.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let refused = self.refused.values();
        let known = Known {
            apps,
            refused: refused.map(|refused| refused.failure.clone()).collect(),
            copies: self.store.folder(),
        };
        report::report(known, reports)
    }

    /// Has all workers put these directives in force. The answer has the libraries that did not
    /// confirm in time.
    pub(super) fn set_level(&mut self, directives: String, reply: oneshot::Sender<Vec<String>>) {
        self.asking.last += 1;
        let number = self.asking.last;
        let waiting = self.fleet.taking_part().into_iter().collect();
        self.fleet.send_all(&Order::SetLevel { number, directives });
        self.asking.levels.insert(
            number,
            Setting {
                waiting,
                unconfirmed: BTreeSet::new(),
                reply,
            },
        );
        self.tell_if_in_force(number);
    }

    pub(super) fn in_force(&mut self, worker: WorkerId, number: u64, unconfirmed: Vec<String>) {
        if let Some(setting) = self.asking.levels.get_mut(&number) {
            setting.waiting.remove(&worker);
            setting.unconfirmed.extend(unconfirmed);
        }
        self.tell_if_in_force(number);
    }

    fn tell_if_in_force(&mut self, number: u64) {
        let setting = self.asking.levels.get(&number);
        if setting.is_some_and(|setting| setting.waiting.is_empty())
            && let Some(setting) = self.asking.levels.remove(&number)
        {
            // Who asked may be gone.
            let _ = setting
                .reply
                .send(setting.unconfirmed.into_iter().collect());
        }
    }
}

/// How long workers have to answer.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);
