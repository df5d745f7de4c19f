//! Which app gets which mount.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, sync::Arc};

use super::{Conflict, Holding, Planned, Settings, Taken};

/// Gives each app its mounts. An app that cannot have all of its mounts stays as it is when it
/// serves, and is left out otherwise.
pub(super) fn assign_mounts(
    mut apps: BTreeMap<String, Planned>,
    settings: &Settings,
    held: &BTreeMap<String, Holding>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<String, Planned> {
    let mut left_out: BTreeMap<String, Planned> = BTreeMap::new();
    while let Some((name, lost)) = weakest_loser(&apps, settings, held) {
        let planned = apps.get_mut(&name).map(|planned| planned.spec.take());
        let Some(spec) = planned.flatten() else { break };
        conflicts.push(conflict(&apps, &name, lost));
        if !held.get(&name).is_some_and(|holding| holding.serves)
            && let Some(planned) = apps.remove(&name)
        {
            let spec = Some(spec);
            left_out.insert(name, Planned { spec, ..planned });
        }
    }
    // An app may have lost to one that was then left out itself.
    for (name, planned) in left_out {
        apps.insert(name.clone(), planned);
        if weakest_loser(&apps, settings, held).is_some() {
            apps.remove(&name);
        } else {
            conflicts.retain(|conflict| {
                conflict.app != name || !matches!(conflict.taken, Taken::Mount { .. })
            });
        }
    }
    apps
}

/// A mount that an app cannot have, and the app that has it.
type Lost = (Arc<str>, String);

/// The app with the weakest claim among those that cannot have one of their mounts.
fn weakest_loser(
    apps: &BTreeMap<String, Planned>,
    settings: &Settings,
    held: &BTreeMap<String, Holding>,
) -> Option<(String, Lost)> {
    let mut claims: BTreeMap<Arc<str>, Vec<(Strength<'_>, &String)>> = BTreeMap::new();
    for (name, planned) in apps {
        let held = held.get(name).map_or(&[][..], |held| &held.mounts);
        let wanted = planned.spec.as_ref().map_or(held, |spec| &spec.mounts);
        for mount in wanted {
            let strength = Strength {
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
        // The sort is stable: of two apps of one library the first by name wins.
        claims.sort_by(|(one, _), (other, _)| other.cmp(one));
        let (_, winner) = claims[0];
        for &(strength, name) in &claims[1..] {
            losers.push((strength, name, (Arc::clone(&mount), winner.clone())));
        }
    }
    let weakest = losers.into_iter().min_by_key(|(strength, ..)| *strength);
    weakest.map(|(_, name, lost)| (name.clone(), lost))
}

/// How strong a claim on a mount is. The first field counts most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Strength<'a> {
    /// The app stays as it is.
    stays: bool,
    /// The operator promised the mount to the app.
    is_promised: bool,
    /// The app is mounted there now.
    is_held: bool,
    /// The first library by path wins.
    path: Reverse<&'a Path>,
}

fn conflict(apps: &BTreeMap<String, Planned>, name: &str, (mount, by): Lost) -> Conflict {
    let library = |name: &str| apps.get(name).map(|planned| planned.library.clone());
    let other = library(&by).unwrap_or_default();
    Conflict {
        library: library(name).unwrap_or_default(),
        plugin: apps
            .get(name)
            .and_then(|planned| planned.plugin.clone())
            .unwrap_or_else(|| name.to_owned()),
        app: name.to_owned(),
        taken: Taken::Mount {
            app: name.to_owned(),
            mount,
            by: format!("{by} ({})", other.display()),
        },
    }
}
