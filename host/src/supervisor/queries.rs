//! Queries to all workers: their reports, and whether a log level is in force.
//!
//! A query has a number and is sent to every ready worker. The query is complete when all these workers have answered
//! or exited. A query for reports is also complete after [`REPORT_TIMEOUT`], so that a worker that hangs does not
//! prevent the report of the other workers.

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
    /// The number of the latest query, of both kinds.
    last_number: u64,
    reports: BTreeMap<u64, ReportQuery>,
    levels: BTreeMap<u64, LevelQuery>,
}

/// A query for the reports of all workers.
#[derive(Debug)]
struct ReportQuery {
    /// The workers that have not answered.
    waiting: BTreeSet<WorkerId>,
    reports: Vec<(WorkerId, WorkerReport)>,
    reply: ReportReply,
}

/// The requester of a report query, and the form of the answer.
#[derive(Debug)]
pub(super) enum ReportReply {
    /// The answer is a report of the apps (`host ctl plugins`).
    Apps(oneshot::Sender<ServerReport>),
    /// The answer is a list of the workers (`host ctl workers`).
    Workers(oneshot::Sender<Roster>),
}

/// A change of the log level that some worker has not confirmed.
#[derive(Debug)]
struct LevelQuery {
    /// The workers that have not answered.
    waiting: BTreeSet<WorkerId>,
    /// The libraries that did not confirm the new level in time.
    unconfirmed: BTreeSet<String>,
    reply: oneshot::Sender<Vec<String>>,
}

impl Supervisor {
    /// Requests a report from all ready workers. The answer is sent on `reply` when the query is complete.
    pub(super) fn request_report(&mut self, reply: ReportReply) {
        self.queries.last_number += 1;
        let number = self.queries.last_number;
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
        // Without any ready worker the query is complete at once.
        self.report_if_complete(number);
    }

    /// Handles the report of a worker.
    pub(super) fn reported(&mut self, worker: WorkerId, number: u64, report: WorkerReport) {
        if let Some(query) = self.queries.reports.get_mut(&number) {
            query.waiting.remove(&worker);
            query.reports.push((worker, report));
        }
        self.report_if_complete(number);
    }

    /// Completes a report query without the workers that have not answered in time.
    pub(super) fn report_timed_out(&mut self, number: u64) {
        if let Some(query) = self.queries.reports.get_mut(&number) {
            query.waiting.clear();
        }
        self.report_if_complete(number);
    }

    /// Removes a worker that has exited from all queries.
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

    /// Answers a report query if it is complete. A late answer to a query that is complete already has no effect.
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

    /// Returns the report of all apps, from the reports of the workers and the supervisor's own state.
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

    /// Orders all ready workers to apply these log directives. The answer lists the libraries that did not confirm in
    /// time.
    pub(super) fn set_level(&mut self, directives: String, reply: oneshot::Sender<Vec<String>>) {
        self.queries.last_number += 1;
        let number = self.queries.last_number;
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

    /// Handles the answer of a worker to a change of the log level.
    pub(super) fn in_force(&mut self, worker: WorkerId, number: u64, unconfirmed: Vec<String>) {
        if let Some(query) = self.queries.levels.get_mut(&number) {
            query.waiting.remove(&worker);
            query.unconfirmed.extend(unconfirmed);
        }
        self.reply_if_in_force(number);
    }

    /// Answers the change of the log level with this number if all workers have confirmed the change.
    fn reply_if_in_force(&mut self, number: u64) {
        let query = self.queries.levels.get(&number);
        if query.is_some_and(|query| query.waiting.is_empty())
            && let Some(query) = self.queries.levels.remove(&number)
        {
            // The requester may have disconnected.
            let _ = query.reply.send(query.unconfirmed.into_iter().collect());
        }
    }
}

/// How long workers may take to send a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
