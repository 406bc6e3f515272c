//! Sixty pipelines of ten operators each, of one record type or of a type each. Nothing here runs for long: what is
//! measured is the compiler. The binaries in `bin/` are what is timed.

/// The records, and a function that makes them.
#[macro_export]
macro_rules! records {
    () => {
        /// What flows.
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        pub struct Event {
            pub user: u64,
            pub shop: String,
            pub cents: u64,
            pub at: i64,
        }

        /// The n-th of them.
        pub fn event(n: u64) -> Event {
            Event { user: n % 100, shop: format!("shop {}", n % 10), cents: n, at: n as i64 }
        }
    };
}

/// A pipeline whose closures are its own: source, map, filter, flat_map, map_with_state, map, aggregate, filter_map,
/// inspect, sink.
#[macro_export]
macro_rules! pipeline {
    ($t:expr, $n:literal) => {
        $t.source(concat!("events", $n), Records::of((0..1000).map(event)))
            .map(|e| Event { cents: e.cents + $n, ..e })
            .filter(|e| e.cents % ($n + 2) != 0)
            .flat_map(|e| (e.user != $n).then_some(e))
            .key_by(|e| &e.user)
            .map_with_state(concat!("total", $n), |total: &mut u64, e| {
                *total += e.cents + $n;
                Event { cents: *total, ..e }
            })
            .map(|e| Event { at: e.at + $n, ..e })
            .key_by(|e| &e.shop)
            .aggregate(concat!("stats", $n), |of| (of.count(), of.max(|e| e.cents + $n)))
            .filter_map(|(shop, (count, most))| most.map(|most| (shop, count + $n, most)))
            .inspect(|(shop, ..)| assert!(shop.len() > $n % 2))
            .sink(concat!("result", $n), Null::new());
    };
}

/// Calls `$then` with each of the sixty numbers.
#[macro_export]
macro_rules! sixty {
    ($then:ident) => {
        $then! { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37
        38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 }
    };
}
