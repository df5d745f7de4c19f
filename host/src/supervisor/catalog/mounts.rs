//! Assigns mounts to apps.
//!
//! Each app claims all of its mounts, and each claim has a strength. If several apps claim a mount, the strongest claim
//! wins. An app that loses one mount gets none of its new mounts, because an app with only some of its mounts would be
//! harder to understand than an app that does not change.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, sync::Arc};

use super::{AppSettings, Conflict, CurrentApp, PlannedApp, TakenError};

/// Assigns the mounts to the apps. An app that cannot have all of its mounts does not change if it serves. Otherwise
/// the app is left out of the plan.
///
/// The app with the weakest losing claim is removed first, and then all claims are compared again, because the removal
/// can free a mount for other apps. At the end every app that was left out is tried once more, because the app that won
/// its mount may have been left out later.
pub(super) fn assign_mounts(
    mut apps: BTreeMap<String, PlannedApp>,
    settings: &AppSettings,
    current_apps: &BTreeMap<String, CurrentApp>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, PlannedApp> {
    let mut left_out: BTreeMap<String, PlannedApp> = BTreeMap::new();
    while let Some((name, lost)) = weakest_loser(&apps, settings, current_apps) {
        let planned = apps.get_mut(&name).map(|planned| planned.spec.take());
        // The weakest loser does not change, so all losers are apps that do not change: no claim can be removed.
        let Some(spec) = planned.flatten() else { break };
        conflicts.push(conflict(&apps, &name, lost));
        if !current_apps
            .get(&name)
            .is_some_and(|current| current.serves)
            && let Some(planned) = apps.remove(&name)
        {
            let spec = Some(spec);
            left_out.insert(name, PlannedApp { spec, ..planned });
        }
    }
    for (name, planned) in left_out {
        apps.insert(name.clone(), planned);
        if weakest_loser(&apps, settings, current_apps).is_some() {
            apps.remove(&name);
        } else {
            conflicts.retain(|conflict| {
                conflict.app != name || !matches!(conflict.taken, TakenError::Mount { .. })
            });
        }
    }
    apps
}

/// A mount that an app cannot have, and the name of the app that gets the mount.
type LostMount = (Arc<str>, String);

/// Returns the app with the weakest claim among all apps that lose a mount, and the lost mount. Returns `None` if no
/// app loses a mount.
fn weakest_loser(
    apps: &BTreeMap<String, PlannedApp>,
    settings: &AppSettings,
    current_apps: &BTreeMap<String, CurrentApp>,
) -> Option<(String, LostMount)> {
    let mut claims: BTreeMap<Arc<str>, Vec<(ClaimStrength<'_>, &String)>> = BTreeMap::new();
    for (name, planned) in apps {
        let current = current_apps
            .get(name)
            .map_or(&[][..], |current| &current.mounts);
        // An app that does not change claims its current mounts.
        let wanted = planned.spec.as_ref().map_or(current, |spec| &spec.mounts);
        for mount in wanted {
            let strength = ClaimStrength {
                is_unchanged: planned.spec.is_none(),
                is_configured: settings.configured_owner(mount) == Some(name),
                is_current: current.contains(mount),
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
        // The strongest claim comes first. The sort is stable, so of two apps of one library the first by name wins.
        claims.sort_by(|(one, _), (other, _)| other.cmp(one));
        let (_, winner) = claims[0];
        for &(strength, name) in &claims[1..] {
            losers.push((strength, name, (Arc::clone(&mount), winner.clone())));
        }
    }
    let weakest = losers.into_iter().min_by_key(|(strength, ..)| *strength);
    weakest.map(|(_, name, lost)| (name.clone(), lost))
}

/// The strength of a claim on a mount. The derived order compares the fields from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClaimStrength<'a> {
    /// Whether the app does not change in this plan. Such an app keeps all of its mounts.
    is_unchanged: bool,
    /// Whether the settings assign the mount to the app.
    is_configured: bool,
    /// Whether the app has the mount now.
    is_current: bool,
    /// The path of the library, reversed so that the first path is the strongest.
    path: Reverse<&'a Path>,
}

/// Returns the conflict of the app `name`, which has lost a mount.
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
