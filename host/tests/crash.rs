//! What a process writes down as it dies, and what its parent makes of that. Each test has a child, which is this program again: see
//! [`child`].

#![allow(unsafe_code, reason = "the child breaks what can be broken")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    env,
    ffi::{c_int, c_void},
    fs,
    hint::black_box,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::ExitStatusExt,
    },
    process::{self, Child, Command, ExitStatus, Stdio},
    ptr, thread,
    time::{Duration, Instant},
};

use host::{
    scoreboard::{self, BoardSnapshot, Crash, Label, Scoreboard, WorkKind},
    supervisor::{
        autopsy::{self, Death, Evidence, Generation, Reason},
        process::Ended,
    },
    worker::crash,
};
use http::Method;
use rustix::process::Pid;

#[test]
fn a_null_write_names_app_request_and_line() {
    let death = died("null").examine();
    assert_eq!(death.what, "SIGSEGV at address 0x0");
    assert_blamed(&death, Reason::Thread(WorkKind::Request));
    let request = death.request.as_ref().unwrap();
    assert_eq!(
        (&*request.id, &*request.method, &*request.path),
        ("7f3a", "GET", "/orders/17")
    );
    let frame = death.frame().unwrap();
    assert!(frame.function.contains("write_to_null"), "{death}");
    let (file, line) = frame.source.as_ref().unwrap();
    let mut lines = include_str!("crash.rs").lines();
    let here = lines.position(|line| line.ends_with("// a fault is here"));
    assert!(file.ends_with("tests/crash.rs"), "{death}");
    assert_eq!(*line as usize, here.unwrap() + 1);
    assert_eq!(death.thread.as_deref(), Some("serving"));
}

#[test]
fn a_thread_of_the_apps_own_is_known_by_its_code() {
    let death = died("own_thread").examine();
    assert_blamed(&death, Reason::Code);
    assert!(death.request.is_none());
}

#[test]
fn a_full_stack_is_told_by_std_and_recorded() {
    let dead = died("overflow");
    let death = dead.examine();
    assert_eq!(dead.status.signal(), Some(libc::SIGABRT));
    assert!(
        dead.stderr.contains("has overflowed its stack"),
        "{}",
        dead.stderr
    );
    assert_eq!(death.what, "SIGABRT: a thread's stack is full");
    assert_blamed(&death, Reason::Thread(WorkKind::Request));
    assert!(
        death.frame().unwrap().function.contains("recurse"),
        "{death}"
    );
}

#[test]
fn a_full_stack_of_a_thread_that_std_does_not_know_is_recorded() {
    let death = died("foreign_overflow").examine();
    assert_eq!(death.what, "SIGSEGV: a thread's stack is full");
    assert_blamed(&death, Reason::Thread(WorkKind::Request));
}

#[test]
fn without_a_stack_for_the_handler_the_scoreboard_is_left() {
    let dead = died("no_stack");
    assert!(dead.board.crashes.is_empty());
    let death = dead.examine();
    assert_eq!(death.what, "SIGSEGV");
    assert_blamed(&death, Reason::Alone);
    assert_eq!(death.request.unwrap().path, "/orders/17");
}

#[test]
fn a_call_of_null_is_placed_at_its_caller() {
    let death = died("null_call").examine();
    assert_eq!(death.what, "SIGSEGV at address 0x0");
    assert!(
        death.frame().unwrap().function.contains("call_null"),
        "{death:#?}"
    );
}

#[test]
fn other_faults_have_their_own_names() {
    for (way, signal, what) in [
        ("abort", libc::SIGABRT, "SIGABRT"),
        ("bus", libc::SIGBUS, "SIGBUS at address 0x"),
        ("illegal", libc::SIGILL, "SIGILL at instruction 0x"),
        (
            "double_free",
            libc::SIGABRT,
            "SIGABRT (free(): double free detected",
        ),
    ] {
        let dead = died(way);
        assert_eq!(dead.status.signal(), Some(signal), "{way}");
        let death = dead.examine();
        assert!(death.what.starts_with(what), "{death}");
        assert_blamed(&death, Reason::Thread(WorkKind::Request));
        let frame = death.frame().unwrap();
        assert!(frame.function.contains(way), "{way}: {death:#?}");
    }
}

#[test]
fn an_exit_names_who_called_it() {
    let dead = died("exit");
    assert_eq!(dead.status.code(), Some(3));
    let death = dead.examine();
    assert_eq!(death.what, "a call of exit(3)");
    assert_blamed(&death, Reason::Thread(WorkKind::Init));
    assert!(
        death.frame().unwrap().function.contains("call_exit"),
        "{death:#?}"
    );
}

#[test]
fn an_exit_that_no_handler_sees_leaves_the_scoreboard() {
    let death = died("_exit").examine();
    assert_eq!(death.what, "exit code 3");
    assert_blamed(&death, Reason::Alone);
}

#[test]
fn the_end_of_main_is_no_exit_of_an_app() {
    let dead = died("nothing");
    assert!(dead.status.success());
    assert!(dead.board.exit.is_none() && dead.board.crashes.is_empty());
}

#[test]
fn nobody_is_blamed_for_what_comes_from_outside() {
    for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM] {
        let mut running = Running::start("wait");
        running.until(|board| board.threads.iter().any(|thread| thread.work.is_some()));
        running.kill(signal);
        let dead = running.dead();
        assert_eq!(dead.status.signal(), Some(signal));
        let death = dead.examine();
        assert_eq!(death.blame, None, "{death}");
        assert_eq!(death.suspects, [shop()]);
    }
}

#[test]
fn another_handler_does_not_hide_a_crash() {
    for way in ["replaced", "replaced_and_chained", "ignored"] {
        let dead = died(way);
        assert_eq!(dead.status.signal(), Some(libc::SIGSEGV), "{way}");
        let death = dead.examine();
        assert_eq!(death.what, "SIGSEGV at address 0x0", "{way}");
        assert_blamed(&death, Reason::Thread(WorkKind::Request));
        assert_eq!(
            dead.stderr.contains("the other handler ran"),
            way != "ignored",
            "{way}"
        );
    }
}

#[test]
fn a_fault_that_another_handler_mends_is_no_crash() {
    let dead = died("mended");
    assert!(dead.status.success(), "{} {}", dead.status, dead.stderr);
    assert!(dead.board.crashes.is_empty());
}

#[test]
fn a_thread_that_hangs_says_where() {
    let mut running = Running::start("hang");
    running.until(|board| board.threads.iter().any(|thread| thread.work.is_some()));
    let pid = Pid::from_child(&running.child);
    let asked = crash::dump::ask(pid, &running.scoreboard).unwrap();
    assert!(asked >= 2);
    let stuck = running.board().threads[0].thread;
    let mut dumps = Vec::new();
    eventually(|| {
        dumps = running.scoreboard.dumps();
        dumps
            .iter()
            .any(|dump| dump.thread == stuck && dump.frames.len() > 1)
    });
    crash::dump::place(pid, &mut dumps).unwrap();
    let death = autopsy::examine_hung(&running.board(), &dumps, Duration::ZERO).locate();
    assert_blamed(&death, Reason::Hung);
    assert!(
        death.frame().unwrap().function.contains("loop_for_ever"),
        "{death:#?}"
    );
    running.kill(libc::SIGKILL);
}

#[test]
fn what_a_thread_does_is_seen_while_it_does_it() {
    let mut running = Running::start("nested");
    running.until(|board| doing(board) == Some((WorkKind::Body, "/inner".into())));
    running.go_on();
    running.until(|board| doing(board) == Some((WorkKind::Request, "/orders/17".into())));
    running.go_on();
    running.until(|board| board.threads.iter().all(|thread| thread.work.is_none()));
    running.go_on();
    running.until(|board| board.threads.is_empty());
    running.go_on();
    assert!(running.dead().status.success());
}

fn doing(board: &BoardSnapshot) -> Option<(WorkKind, String)> {
    let work = board.threads.first()?.work.as_ref()?;
    Some((work.kind, work.request.as_ref()?.path.clone()))
}

fn shop() -> Generation {
    Generation {
        app: "shop".to_owned(),
        number: 7,
    }
}

fn assert_blamed(death: &Death, reason: Reason) {
    let blame = death.blame.as_ref();
    let blamed = blame.map(|blame| (&blame.generation, blame.reason));
    assert_eq!(blamed, Some((&shop(), reason)), "{death:#?}");
}

fn eventually(mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < patience, "it took too long");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A child, and what it writes.
struct Running {
    child: Child,
    scoreboard: Scoreboard,
    go_on: fs::File,
}

struct Dead {
    status: ExitStatus,
    board: BoardSnapshot,
    stderr: String,
}

fn died(way: &str) -> Dead {
    Running::start(way).dead()
}

impl Running {
    fn start(way: &str) -> Self {
        let (scoreboard, file) = Scoreboard::create().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("CRASH_WAY", way)
            .stdin(Stdio::from(file))
            .stdout(Stdio::from(read))
            .stderr(Stdio::piped())
            .spawn();
        Self {
            child: child.unwrap(),
            scoreboard,
            go_on: write.into(),
        }
    }

    fn board(&self) -> BoardSnapshot {
        self.scoreboard.snapshot()
    }

    fn until(&mut self, is_so: impl Fn(&BoardSnapshot) -> bool) {
        eventually(|| {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}");
            is_so(&self.board())
        });
    }

    fn go_on(&mut self) {
        rustix::io::write(&self.go_on, b".").unwrap();
    }

    fn kill(&self, signal: c_int) {
        // SAFETY: it has no memory to be wrong about.
        unsafe { libc::kill(self.child.id() as c_int, signal) };
    }

    fn dead(mut self) -> Dead {
        drop(self.go_on);
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        Dead {
            status: self.child.wait().unwrap(),
            board: self.scoreboard.snapshot(),
            stderr,
        }
    }
}

impl Dead {
    fn examine(&self) -> Death {
        autopsy::examine(&Evidence {
            status: match self.status.signal() {
                Some(signal) => Ended::Signaled {
                    signal,
                    core: self.status.core_dumped(),
                },
                None => Ended::Exited {
                    code: self.status.code().unwrap(),
                },
            },
            board: &self.board,
            loading: &[],
            probation: &[],
            last_words: &self.stderr,
            out_of_memory: false,
        })
        .locate()
    }
}

/// What the children do; nothing in the tests' own process.
#[test]
fn child() {
    let Ok(way) = env::var("CRASH_WAY") else {
        return;
    };
    // SAFETY: it has no memory to be wrong about. A child that hangs is not to hang its test.
    unsafe { libc::alarm(20) };
    let memory = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let board = Scoreboard::attach(&memory).unwrap().serve();
    crash::install(board).unwrap();
    let program = env::current_exe().unwrap();
    let label = scoreboard::label("shop", 7, &program);
    match &*way {
        "nothing" => {}
        "own_thread" => on("other", write_to_null),
        "overflow" => in_app(label, || {
            black_box(recurse(1));
        }),
        "foreign_overflow" => foreign(label, true),
        "no_stack" => foreign(label, false),
        "null" => in_app(label, write_to_null),
        "null_call" => in_app(label, call_null),
        "abort" => in_app(label, call_abort),
        "bus" => in_app(label, touch_bus),
        "illegal" => in_app(label, run_illegal),
        "double_free" => in_app(label, call_double_free),
        "exit" => on("loading", move || {
            let _entered = scoreboard::enter(label, WorkKind::Init);
            call_exit();
        }),
        "_exit" => in_app(label, || {
            // SAFETY: it does not return.
            unsafe { libc::_exit(3) }
        }),
        "wait" => in_app(label, wait),
        "hang" => in_app(label, loop_for_ever),
        "nested" => nested(label),
        "replaced" | "replaced_and_chained" | "ignored" => {
            replace_handler(&way);
            let replaced = crash::reinstall();
            assert_eq!(replaced, ["SIGSEGV"]);
            in_app(label, write_to_null);
        }
        "mended" => mended(label),
        other => panic!("there is no {other}"),
    }
}

fn on(name: &str, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).unwrap().join().unwrap();
}

fn in_app(label: Label, work: impl FnOnce() + Send + 'static) {
    on("serving", move || {
        crash::stack::alternate();
        let _entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        work();
    });
}

fn wait() {
    let mut byte = 0_u8;
    // SAFETY: there is room for one byte.
    unsafe { libc::read(1, (&raw mut byte).cast(), 1) };
}

fn nested(label: Label) {
    on("serving", move || {
        let entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        let note = {
            let entered = scoreboard::enter_request(label, b"1", &Method::POST, "/inner");
            entered.note()
        };
        let inner = scoreboard::enter_again(note.as_ref(), WorkKind::Body);
        wait();
        drop(inner);
        wait();
        drop(entered);
        wait();
    });
    wait();
}

#[inline(never)]
fn write_to_null() {
    let nowhere: *mut u8 = black_box(ptr::null_mut());
    // SAFETY: none: this is to crash.
    unsafe { nowhere.write_volatile(1) }; // a fault is here
}

#[inline(never)]
fn call_null() {
    // SAFETY: none: this is to crash.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn(i32) -> i32>(black_box(0)) };
    black_box(function(black_box(1)));
}

#[inline(never)]
fn call_abort() {
    process::abort();
}

#[inline(never)]
fn call_exit() {
    process::exit(3);
}

#[inline(never)]
fn touch_bus() {
    let file = rustix::fs::memfd_create("empty", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = file.as_raw_fd();
    // SAFETY: a new mapping.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file,
            0,
        )
    };
    // SAFETY: none: the file has no such page, and this is to crash.
    black_box(unsafe { map.cast::<u8>().read_volatile() });
}

#[inline(never)]
fn run_illegal() {
    // SAFETY: none: this is to crash.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2");
    }
    // SAFETY: none: this is to crash.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0");
    }
}

#[inline(never)]
fn call_double_free() {
    // SAFETY: any size will do.
    let room = black_box(unsafe { libc::malloc(24) });
    // SAFETY: the room is there.
    unsafe { libc::free(room) };
    // SAFETY: none: glibc is to notice.
    unsafe { libc::free(black_box(room)) };
}

#[inline(never)]
fn loop_for_ever() {
    loop {
        black_box(0);
    }
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "the stack is to be full")]
fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    recurse(depth + 1) + room[7]
}

/// Fills the stack of a thread that std has not started.
fn foreign(label: Label, has_stack: bool) {
    extern "C" fn run(argument: *mut c_void) -> *mut c_void {
        // SAFETY: the argument is what was boxed below.
        let (label, has_stack) = *unsafe { Box::from_raw(argument.cast::<(Label, bool)>()) };
        if has_stack {
            crash::stack::alternate();
        }
        let _entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        black_box(recurse(1));
        ptr::null_mut()
    }
    let mut thread = 0;
    let argument = Box::into_raw(Box::new((label, has_stack)));
    // SAFETY: the function takes such an argument.
    unsafe { libc::pthread_create(&raw mut thread, ptr::null(), run, argument.cast()) };
    // SAFETY: the thread was started above.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
}

static mut PREVIOUS: Option<libc::sigaction> = None;

fn replace_handler(way: &str) {
    extern "C" fn other(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let said = b"the other handler ran\n";
        // SAFETY: the bytes are there.
        unsafe { libc::write(2, said.as_ptr().cast(), said.len()) };
        // SAFETY: written before the handler was set.
        match unsafe { PREVIOUS } {
            Some(previous) => {
                // SAFETY: it is a handler of three arguments.
                let previous = unsafe {
                    std::mem::transmute::<
                        usize,
                        extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void),
                    >(previous.sa_sigaction)
                };
                previous(signal, info, context);
            }
            // SAFETY: the default may be set.
            None => unsafe {
                libc::signal(signal, libc::SIG_DFL);
            },
        }
    }
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = if way == "ignored" {
        libc::SIG_IGN
    } else {
        other as *const () as usize
    };
    let mut previous = action;
    // SAFETY: both are valid.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut previous) };
    if way == "replaced_and_chained" {
        // SAFETY: no other thread looks at it yet.
        unsafe { PREVIOUS = Some(previous) };
    }
}

/// Writes to a page that a handler makes writable when that is tried.
fn mended(label: Label) {
    extern "C" fn mend(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
        // SAFETY: the kernel gives it.
        let info = unsafe { &*info };
        // SAFETY: it tells of a fault.
        let address = unsafe { info.si_addr() };
        let page = (address as usize & !4095) as *mut c_void;
        // SAFETY: the page was mapped below.
        unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    }
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = mend as *const () as usize;
    // SAFETY: the action is valid.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) };
    assert_eq!(crash::reinstall(), ["SIGSEGV"]);
    in_app(label, || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        for _ in 0..10 {
            // SAFETY: a new mapping.
            let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
            // SAFETY: the handler makes it writable.
            unsafe { page.cast::<u8>().write_volatile(1) };
        }
    });
}

/// A record is worth something by itself, too.
#[test]
fn a_record_has_all_that_the_kernel_told() {
    let dead = died("null");
    let [
        Crash {
            signal,
            address,
            instruction,
            stack,
            thread,
            name,
            frames,
            ..
        },
    ] = &*dead.board.crashes
    else {
        panic!("one crash, found {:?}", dead.board.crashes);
    };
    assert_eq!((*signal, *address, &**name), (libc::SIGSEGV, 0, "serving"));
    assert!(*instruction != 0 && *stack != 0 && *thread != 0);
    assert_eq!(frames[0].address, *instruction);
    assert!(frames.len() > 5);
    assert!(frames[0].place.is_some());
}
