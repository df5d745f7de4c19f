//! Assigns mounts to apps.
//!
//! Each app claims all of its mounts, and a claim has a strength. Where claims collide, the strongest wins.
//! An app that loses one mount gets none of its new mounts, because an app at half of its mounts would be
//! harder to understand than an app that stays as it is.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, sync::Arc};

use super::{AppSettings, Conflict, CurrentApp, PlannedApp, TakenError};

/// Gives each app its mounts. An app that cannot have all of them stays as it is if it serves, and is
/// left out of the plan otherwise.
///
/// The weakest loser is removed first and all claims are compared again, because its removal can free a
/// mount for others. At the end every app that was left out is tried once more: the app that it lost to
/// may have been left out itself.
pub(super) fn assign_mounts(
    mut apps: BTreeMap<String, PlannedApp>,
    settings: &AppSettings,
    held: &BTreeMap<String, CurrentApp>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, PlannedApp> {
    let mut left_out: BTreeMap<String, PlannedApp> = BTreeMap::new();
    while let Some((name, lost)) = weakest_loser(&apps, settings, held) {
        let planned = apps.get_mut(&name).map(|planned| planned.spec.take());
        let Some(spec) = planned.flatten() else { break };
        conflicts.push(conflict(&apps, &name, lost));
        if !held.get(&name).is_some_and(|current| current.serves)
            && let Some(planned) = apps.remove(&name)
        {
            let spec = Some(spec);
            left_out.insert(name, PlannedApp { spec, ..planned });
        }
    }
    // The winner over this app may have been left out later.
    for (name, planned) in left_out {
        apps.insert(name.clone(), planned);
        if weakest_loser(&apps, settings, held).is_some() {
            apps.remove(&name);
        } else {
            conflicts.retain(|conflict| {
                conflict.app != name || !matches!(conflict.taken, TakenError::Mount { .. })
            });
        }
    }
    apps
}

/// A mount that an app cannot have, and the name of the app that wins it.
type LostMount = (Arc<str>, String);

/// Returns the app with the weakest claim among all apps that lose a mount.
fn weakest_loser(
    apps: &BTreeMap<String, PlannedApp>,
    settings: &AppSettings,
    held: &BTreeMap<String, CurrentApp>,
) -> Option<(String, LostMount)> {
    let mut claims: BTreeMap<Arc<str>, Vec<(ClaimStrength<'_>, &String)>> = BTreeMap::new();
    for (name, planned) in apps {
        let held = held.get(name).map_or(&[][..], |held| &held.mounts);
        let wanted = planned.spec.as_ref().map_or(held, |spec| &spec.mounts);
        for mount in wanted {
            let strength = ClaimStrength {
                stays: planned.spec.is_none(),
                is_promised: settings.promised(mount) == Some(name),
                is_held: held.contains(mount),
                path: Reverse(&planned.library),
            };
            claims
                .entry(Arc::clone(mount))
                .or_default()
                .push((strength, name));
        }
    }
    let mut losers = Vec::new();
    for (mount, mut claims) in claims {
        // The sort is stable, so of two apps of one library the first by name wins.
        claims.sort_by(|(one, _), (other, _)| other.cmp(one));
        let (_, winner) = claims[0];
        for &(strength, name) in &claims[1..] {
            losers.push((strength, name, (Arc::clone(&mount), winner.clone())));
        }
    }
    let weakest = losers.into_iter().min_by_key(|(strength, ..)| *strength);
    weakest.map(|(_, name, lost)| (name.clone(), lost))
}

/// The strength of a claim on a mount. Fields are compared in order, the first one counts most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClaimStrength<'a> {
    /// The app stays as it is, so it does not give the mount up.
    stays: bool,
    /// The settings assign the mount to the app.
    is_promised: bool,
    /// The app is mounted there now.
    is_held: bool,
    /// The library, reversed so that the first path is the strongest.
    path: Reverse<&'a Path>,
}

fn conflict(apps: &BTreeMap<String, PlannedApp>, name: &str, (mount, by): LostMount) -> Conflict {
    let library = |name: &str| apps.get(name).map(|planned| planned.library.clone());
    let other = library(&by).unwrap_or_default();
    Conflict {
        library: library(name).unwrap_or_default(),
        plugin: apps
            .get(name)
            .and_then(|planned| planned.plugin.clone())
            .unwrap_or_else(|| name.to_owned()),
        app: name.to_owned(),
        taken: TakenError::Mount {
            app: name.to_owned(),
            mount,
            by: format!("{by} ({})", other.display()),
        },
    }
}
