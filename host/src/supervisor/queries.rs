//! Queries to all workers: their reports, and whether a log level is in force.
//!
//! A query is numbered and sent to every ready worker. It is answered when all workers have answered or
//! exited, and a report also after [`REPORT_TIMEOUT`], so that a hanging worker does not hide the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{sync::oneshot, time};

use super::{
    Supervisor, TaskOutcome,
    app::WorkerId,
    report::{self, ReportInput, ServerReport},
    roster::Roster,
};
use crate::orders::{Order, WorkerReport};

/// The queries that some worker has not answered yet, by number.
#[derive(Debug, Default)]
pub(super) struct Queries {
    last: u64,
    reports: BTreeMap<u64, ReportQuery>,
    levels: BTreeMap<u64, LevelQuery>,
}

#[derive(Debug)]
struct ReportQuery {
    waiting: BTreeSet<WorkerId>,
    reports: Vec<(WorkerId, WorkerReport)>,
    reply: ReportReply,
}

/// Where the answer to a report query goes.
#[derive(Debug)]
pub(super) enum ReportReply {
    /// To the report of the apps (`host ctl plugins`).
    Apps(oneshot::Sender<ServerReport>),
    /// To the list of the workers (`host ctl workers`).
    Workers(oneshot::Sender<Roster>),
}

#[derive(Debug)]
struct LevelQuery {
    waiting: BTreeSet<WorkerId>,
    /// The libraries that did not confirm the new level in time.
    unconfirmed: BTreeSet<String>,
    reply: oneshot::Sender<Vec<String>>,
}

impl Supervisor {
    /// Asks all ready workers for a report.
    pub(super) fn ask_report(&mut self, reply: ReportReply) {
        self.queries.last += 1;
        let number = self.queries.last;
        let waiting: BTreeSet<_> = self.fleet.ready_workers().into_iter().collect();
        self.fleet.send_all(&Order::Report { number });
        let query = ReportQuery {
            waiting,
            reports: Vec::new(),
            reply,
        };
        self.queries.reports.insert(number, query);
        self.tasks.spawn(async move {
            time::sleep(REPORT_TIMEOUT).await;
            TaskOutcome::ReportTimedOut(number)
        });
        self.report_if_complete(number);
    }

    pub(super) fn reported(&mut self, worker: WorkerId, number: u64, report: WorkerReport) {
        if let Some(query) = self.queries.reports.get_mut(&number) {
            query.waiting.remove(&worker);
            query.reports.push((worker, report));
        }
        self.report_if_complete(number);
    }

    /// Answers a report query without the workers that have not answered in time.
    pub(super) fn report_timed_out(&mut self, number: u64) {
        if let Some(query) = self.queries.reports.get_mut(&number) {
            query.waiting.clear();
        }
        self.report_if_complete(number);
    }

    /// Takes a worker that has exited out of all queries.
    pub(super) fn forget_queries_of(&mut self, worker: WorkerId) {
        for number in self.queries.reports.keys().copied().collect::<Vec<_>>() {
            if let Some(query) = self.queries.reports.get_mut(&number) {
                query.waiting.remove(&worker);
            }
            self.report_if_complete(number);
        }
        for number in self.queries.levels.keys().copied().collect::<Vec<_>>() {
            self.in_force(worker, number, Vec::new());
        }
    }

    fn report_if_complete(&mut self, number: u64) {
        let query = self.queries.reports.get(&number);
        if query.is_none_or(|query| !query.waiting.is_empty()) {
            return;
        }
        let Some(query) = self.queries.reports.remove(&number) else {
            return;
        };
        match query.reply {
            ReportReply::Apps(reply) => {
                // The requester may have disconnected.
                let _ = reply.send(self.app_report(&query.reports));
            }
            ReportReply::Workers(reply) => self.send_roster(&query.reports, reply),
        }
    }

    /// Joins the reports of the workers with the supervisor's own knowledge of the apps.
    fn app_report(&self, reports: &[(WorkerId, WorkerReport)]) -> ServerReport {
        let mut apps: Vec<_> = self.apps.values().map(|app| (app, false)).collect();
        apps.extend(self.removed.values().map(|app| (app, true)));
        apps.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let refused = self.refused.values();
        let known = ReportInput {
            apps,
            refused: refused.map(|refused| refused.failure.clone()).collect(),
            copies: self.store.folder(),
        };
        report::report(known, reports)
    }

    /// Orders all workers to apply these log directives. The answer lists the libraries that did not
    /// confirm in time.
    pub(super) fn set_level(&mut self, directives: String, reply: oneshot::Sender<Vec<String>>) {
        self.queries.last += 1;
        let number = self.queries.last;
        let waiting = self.fleet.ready_workers().into_iter().collect();
        self.fleet.send_all(&Order::SetLevel { number, directives });
        self.queries.levels.insert(
            number,
            LevelQuery {
                waiting,
                unconfirmed: BTreeSet::new(),
                reply,
            },
        );
        self.reply_if_in_force(number);
    }

    pub(super) fn in_force(&mut self, worker: WorkerId, number: u64, unconfirmed: Vec<String>) {
        if let Some(setting) = self.queries.levels.get_mut(&number) {
            setting.waiting.remove(&worker);
            setting.unconfirmed.extend(unconfirmed);
        }
        self.reply_if_in_force(number);
    }

    fn reply_if_in_force(&mut self, number: u64) {
        let setting = self.queries.levels.get(&number);
        if setting.is_some_and(|setting| setting.waiting.is_empty())
            && let Some(setting) = self.queries.levels.remove(&number)
        {
            // The requester may have disconnected.
            let _ = setting
                .reply
                .send(setting.unconfirmed.into_iter().collect());
        }
    }
}

/// How long workers may take to send a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
