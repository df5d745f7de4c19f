use std::fs;

use super::*;

fn parsed(args: &[&str]) -> Result<Invocation, CliError> {
    let args = ["host"].iter().chain(args);
    parse(args.map(OsString::from))
}

#[test]
fn clap_finds_no_fault_with_the_options() {
    settings::with_variable_names(command()).debug_assert();
}

#[test]
fn flags_of_a_server_and_a_subcommand_exclude_each_other() {
    assert!(matches!(parsed(&[]), Ok(Invocation::Serve(_))));
    assert!(matches!(
        parsed(&["--print-config"]),
        Ok(Invocation::PrintConfig(_))
    ));
    let error = parsed(&["--threads=1", "check", "x.so"]).unwrap_err();
    assert!(error.to_string().contains("subcommand"), "{error}");
}

#[test]
fn check_takes_a_library_and_no_settings() {
    let invocation = parsed(&["check", "libshop.so", "b.so"]).unwrap();
    let Invocation::Check(files, limit) = invocation else {
        panic!("{invocation:?}");
    };
    assert_eq!(files, ["libshop.so", "b.so"].map(PathBuf::from));
    assert_eq!(limit, Duration::from_secs(10));
    assert!(parsed(&["check"]).is_err());
}

#[test]
fn dev_passes_the_servers_flags_on() {
    let Ok(Invocation::Dev(_, flags)) =
        parsed(&["dev", "shop", "--bind=[::1]:0", "--threads", "2"])
    else {
        panic!("a session");
    };
    assert_eq!(flags, ["--bind=[::1]:0", "--threads=2"]);
}

#[test]
fn a_path_in_place_of_a_subcommand_is_answered_with_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libshop.so");
    fs::write(&library, "").unwrap();
    for (path, meant) in [
        (folder.path(), "`host --plugins /"),
        (&*library, "`host check /"),
    ] {
        let error = parsed(&[path.to_str().unwrap()]).unwrap_err();
        assert!(error.to_string().contains(meant), "{error}");
    }
}
