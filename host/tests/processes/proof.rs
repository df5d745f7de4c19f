//! Tests of the proof before an upgrade: a new program must prove that it can take over. This program is the new
//! program, and behaves in the way that its argument names.

use std::{
    collections::BTreeMap, env, ffi::OsString, path::PathBuf, process, thread, time::Duration,
};

use host::{
    channel::Hello,
    supervisor::{
        process::Children,
        upgrade::{ProofError, check_state, print_proof, prove},
    },
};
use rustix::process::{Signal, getpid, kill_process};

use crate::{block_on, worker::hello};

pub(crate) fn a_program_proves_that_it_can_take_over() {
    let program = env::current_exe().unwrap();
    block_on(async {
        let children = Children::default();
        let proof_of = |path: PathBuf, behavior: &str| {
            let (children, args) = (children.clone(), [OsString::from(behavior)]);
            let limit = Duration::from_secs(1);
            async move { prove(&children, &path, &args, &hello(), br#"["state"]"#, limit).await }
        };
        assert_eq!(proof_of(program.clone(), "well").await.unwrap(), hello());
        let error = proof_of(program.clone(), "badly").await.unwrap_err();
        let text = format!(
            "{} cannot take over: exit code 2, no such option",
            program.display()
        );
        assert_eq!(error.to_string(), text);
        let error = proof_of(program.clone(), "of another protocol")
            .await
            .unwrap_err();
        assert!(matches!(error, ProofError::Protocol { theirs, .. } if theirs.protocol == 9));
        proof_of(program.clone(), "reads the state").await.unwrap();
        let error = proof_of(program.clone(), "reads another state")
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("cannot pass the state"),
            "{error}"
        );
        let error = proof_of(program.clone(), "never").await.unwrap_err();
        assert!(matches!(error, ProofError::TimedOut { .. }), "{error}");
        let error = proof_of(PathBuf::from("/bin/true"), "").await.unwrap_err();
        assert!(matches!(error, ProofError::NoProof { .. }), "{error}");
        let error = proof_of(PathBuf::from("/nonexistent"), "")
            .await
            .unwrap_err();
        assert!(matches!(error, ProofError::Start { .. }), "{error}");
        let error = proof_of(program, "crash").await.unwrap_err();
        assert!(error.to_string().contains("SIGKILL"), "{error}");
    });
}

/// Runs as the new program of an upgrade: proves that it can take over, or fails. `behavior` names what it does.
pub(crate) fn run(behavior: &str) {
    match behavior {
        "well" => {
            // The supervisor must find the proof after other output.
            println!("something else");
            print_proof(&hello()).unwrap();
        }
        "reads the state" => {
            check_state::<[String; 1]>().unwrap();
            print_proof(&hello()).unwrap();
        }
        "reads another state" => {
            let error = check_state::<BTreeMap<String, String>>().unwrap_err();
            eprintln!("{error}");
            process::exit(1);
        }
        "of another protocol" => print_proof(&Hello {
            protocol: 9,
            ..hello()
        })
        .unwrap(),
        "never" => loop {
            thread::park();
        },
        "crash" => kill_process(getpid(), Signal::KILL).unwrap(),
        _ => {
            eprintln!("no such option");
            process::exit(2);
        }
    }
}
