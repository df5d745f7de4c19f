use super::*;

#[test]
fn numbers_spellings_and_order_are_stable() {
    let table = [
        (0, Level::Off, "off"),
        (1, Level::Critical, "critical"),
        (2, Level::Error, "error"),
        (3, Level::Warn, "warn"),
        (4, Level::Info, "info"),
        (5, Level::Debug, "debug"),
        (6, Level::Trace, "trace"),
    ];
    for (number, level, text) in table {
        assert_eq!(Level::from_number(number), Some(level));
        assert_eq!(level as u32, number);
        assert_eq!(level.to_string(), text);
        assert_eq!(text.parse(), Ok(level));
        assert_eq!(text.to_uppercase().parse(), Ok(level));
    }
    assert_eq!(Level::from_number(7), None);
    assert_eq!("Warning".parse(), Ok(Level::Warn));
    assert!(table.is_sorted_by_key(|(_, level, _)| level));
}

#[test]
fn only_an_error_can_be_critical() {
    use tracing_core::Level as Event;
    for (event, critical, level) in [
        (Event::TRACE, false, Level::Trace),
        (Event::DEBUG, false, Level::Debug),
        (Event::INFO, true, Level::Info),
        (Event::WARN, false, Level::Warn),
        (Event::ERROR, false, Level::Error),
        (Event::ERROR, true, Level::Critical),
    ] {
        assert_eq!(Level::from_tracing(&event, critical), level);
    }
}

#[test]
fn filters_let_critical_through_as_error() {
    for level in Level::ALL {
        let filter = tracing_core::LevelFilter::from(level).to_string();
        assert_eq!(
            filter,
            log::LevelFilter::from(level).to_string().to_lowercase()
        );
        assert_eq!(
            filter,
            if level == Level::Critical {
                "error".into()
            } else {
                level.to_string()
            }
        );
    }
}

#[test]
fn the_most_specific_directive_wins() {
    let text = "warn, shop=debug ,shop::db=error,hyper=off,my-cart#=trace,shop#=info";
    let directives: Directives = text.parse().unwrap();
    let table = [
        (None, "host::server", Level::Warn),
        (None, "shop", Level::Debug),
        (None, "shop::cart", Level::Debug),
        (None, "shopping", Level::Warn),
        (None, "shop::db", Level::Error),
        (None, "shop::db::pool", Level::Error),
        (None, "shop::dba", Level::Debug),
        (Some("shop"), "shop::cart", Level::Debug),
        (Some("shop"), "sqlx::query", Level::Info),
        (Some("shop"), "shop::db", Level::Error),
        (Some("shop"), "hyper::proto", Level::Off),
        (Some("other"), "other", Level::Warn),
        (Some("other"), "shop::cart", Level::Debug),
        (Some("my-cart"), "my_cart::pay", Level::Trace),
        (Some("my_cart"), "sqlx", Level::Trace),
        (Some("my-cart"), "hyper", Level::Off),
        (None, "my_cart", Level::Warn),
        (None, "", Level::Warn),
    ];
    for (plugin, target, level) in table {
        assert_eq!(
            directives.level(plugin, target),
            level,
            "{plugin:?} {target}"
        );
    }
    assert_eq!(directives.max_level(), Level::Trace);
}

#[test]
fn display_is_canonical_and_parses_again() {
    let table = [
        ("WARNING", "warn"),
        ("critical", "critical"),
        ("shop=debug", "info,shop=debug"),
        ("shop=debug,error", "error,shop=debug"),
        ("shop#=debug, shop=error", "info,shop#=debug,shop=error"),
        ("info,off", "off"),
        (
            "my-shop=debug,a=warn,my_shop=Warning",
            "info,a=warn,my_shop=warn",
        ),
    ];
    for (text, canonical) in table {
        let directives: Directives = text.parse().unwrap();
        assert_eq!(directives.to_string(), canonical);
        assert_eq!(canonical.parse(), Ok(directives));
    }
    assert_eq!(Directives::default().to_string(), "info");
}

#[test]
fn what_is_wrong_is_named_with_what_is_valid() {
    let table = [
        ("", "\"\" is not a log level"),
        ("verbose", "\"verbose\" is not a log level"),
        ("info,", "\"\" is not a log level"),
        ("info,shop", "\"shop\" is not a log level"),
        ("shop=loud", "\"loud\" is not a log level"),
        ("shop=debug=info", "\"debug=info\" is not a log level"),
        ("=debug", "\"\" does not name a target or an app"),
        (
            "shop::=debug",
            "\"shop::\" does not name a target or an app",
        ),
        (
            "shop[cart]=debug",
            "\"shop[cart]\" does not name a target or an app",
        ),
        ("#=debug", "\"#\" does not name a target or an app"),
        (
            "shop#3=debug",
            "\"shop#3\" does not name a target or an app",
        ),
        ("a::b#=debug", "\"a::b#\" does not name a target or an app"),
        ("a\nb", "\"a\\nb\" is not a log level"),
    ];
    for (text, start) in table {
        let message = text.parse::<Directives>().unwrap_err().to_string();
        assert!(message.starts_with(start), "{text}: {message}");
        assert!(
            message.ends_with(EXPECTED) && !message.contains('\n'),
            "{text}: {message}"
        );
    }
    for level in Level::ALL {
        assert!(EXPECTED.contains(&level.to_string()));
    }
}
