use super::*;

#[test]
fn addresses_have_a_host_and_a_port() {
    for good in [
        "127.0.0.1:8000",
        "[::1]:0",
        "[::]:443",
        "localhost:8000",
        "my-host.example:1",
    ] {
        assert_eq!(good.parse::<BindAddress>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "8000",
        ":8000",
        "localhost",
        "127.0.0.1",
        "::1:8000",
        "a b:1",
        "localhost:65536",
        "http://a:1",
    ] {
        assert_eq!(
            bad.parse::<BindAddress>(),
            Err(ValueError::Address(bad.to_owned()))
        );
    }
    let resolved: Vec<_> = "127.0.0.1:8000"
        .parse::<BindAddress>()
        .unwrap()
        .to_socket_addrs()
        .unwrap()
        .collect();
    assert_eq!(resolved, [SocketAddr::from(([127, 0, 0, 1], 8000))]);
}

#[test]
fn control_sockets_are_unix_sockets() {
    for text in ["unix:/run/host.sock", "/run/host.sock", "/run/./host.sock"] {
        let socket: ControlSocket = text.parse().unwrap();
        assert_eq!(socket.path(), Path::new("/run/host.sock"));
        assert_eq!(socket.to_string(), "unix:/run/host.sock");
    }
    // Wherever the process goes, the socket stays.
    let here = std::env::current_dir().unwrap();
    for text in ["unix:host.sock", "./host.sock"] {
        let socket: ControlSocket = text.parse().unwrap();
        assert_eq!(socket.path(), here.join("host.sock"));
    }
    for bad in ["", "unix:", "127.0.0.1:9000", "9000"] {
        assert_eq!(
            bad.parse::<ControlSocket>(),
            Err(ValueError::ControlSocket(bad.to_owned()))
        );
    }
}

#[test]
fn a_debug_header_needs_the_whole_secret() {
    let header: DebugHeader = "X-Debug=long=secret".parse().unwrap();
    let carries = |value: &'static str| {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-debug"),
            HeaderValue::from_static(value),
        )]);
        header.is_in(&headers)
    };
    assert!(carries("long=secret"));
    assert!(!carries("long=secre") && !carries("long=secret2") && !carries(""));
    assert!(!header.is_in(&HeaderMap::new()));
    assert!(!format!("{header:?}").contains("secret"));
    for bad in [
        "",
        "X-Debug",
        "X-Debug=",
        "X-Debug=short",
        "X Debug=longsecret",
        "X-Debug=long\nsecret",
    ] {
        assert!(bad.parse::<DebugHeader>().is_err(), "{bad}");
    }
}

#[test]
fn mounts_have_a_path_and_a_plugin() {
    for (text, path, plugin) in [
        ("/=hello", "/", "hello"),
        ("/a/b=my-shop", "/a/b", "my-shop"),
        ("/a=b=c", "/a=b", "c"),
    ] {
        assert_eq!(
            text.parse(),
            Ok(Mount {
                path: path.to_owned(),
                plugin: plugin.to_owned()
            })
        );
    }
    for bad in [
        "",
        "/shop",
        "shop=/shop",
        "/shop/=shop",
        "/shop=",
        "=shop",
        "/shop=a b",
    ] {
        assert_eq!(bad.parse::<Mount>(), Err(ValueError::Mount(bad.to_owned())));
    }
}
