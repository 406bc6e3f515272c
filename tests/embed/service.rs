//! The example `embedded` as a process, over HTTP: what it said is durable survives kill -9, and nothing is counted
//! twice.

use crate::common::{Process, Scratch, example};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

struct Service {
    process: Process,
    address: String,
}

impl Service {
    /// Checkpoints are taken when somebody asks.
    fn start(scratch: &Scratch) -> Self {
        let mut command = example("embedded");
        command.args(["--listen", "127.0.0.1:0", "--checkpoint-seconds", "3600", "--data-dir"]);
        let mut process = Process::start(command.arg(scratch.join("data")), &scratch.join("log"));
        let says = |process: &Process| {
            let printed = process.printed();
            Some(printed.split_once("listening on ")?.1.split_once('\n')?.0.to_owned())
        };
        let mut address = None;
        while address.is_none() {
            assert!(process.ended().is_none(), "{}", process.tail());
            address = says(&process);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Self { process, address: address.unwrap() }
    }

    /// The status and the body of the answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn order(&self, user: &str, cents: u64) {
        let (status, body) = self.ask("POST", "/orders", &format!(r#"{{"user": "{user}", "cents": {cents}}}"#));
        assert_eq!(status, 202, "{body}");
    }

    fn checkpoint(&self) -> u64 {
        let (status, body) = self.ask("POST", "/checkpoint", "");
        assert_eq!(status, 200, "{body}");
        body.parse().unwrap()
    }

    /// The total of a user, as soon as it is `expect`; records travel on after their checkpoint.
    fn expect_total(&self, user: &str, expect: u64) {
        for _ in 0..10_000 {
            if self.ask("GET", &format!("/totals/{user}"), "") == (200, expect.to_string()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{:?} in place of {expect}", self.ask("GET", &format!("/totals/{user}"), ""));
    }

    fn status(&self) -> Value {
        let (status, body) = self.ask("GET", "/status", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn what_a_checkpoint_has_acknowledged_survives_kill_9() {
    let scratch = Scratch::new();
    let mut service = Service::start(&scratch);
    assert_eq!(service.ask("GET", "/totals/ann", "").0, 404);
    for cents in 1..=10 {
        service.order("ann", cents);
        service.order("bob", 100);
    }
    let first = service.checkpoint();
    service.expect_total("ann", 55);
    assert_eq!(service.checkpoint(), first, "nothing was ordered since");
    service.order("ann", 1000);
    let second = service.checkpoint();
    assert!(second > first);
    // accepted, and in memory only
    service.order("bob", 5);
    service.order("bob", 6);
    assert!(service.process.kill(), "{}", service.process.tail());

    let mut service = Service::start(&scratch);
    assert_eq!(service.ask("GET", "/totals/ann", "").0, 404, "the page is as of this process, the state is older");
    service.order("ann", 1);
    service.order("bob", 1);
    service.checkpoint();
    service.expect_total("ann", 1056);
    service.expect_total("bob", 1001);
    let status = service.status();
    assert_eq!((&status["job"], &status["phase"]), (&Value::from("embedded"), &Value::from("running")));
    assert_eq!((&status["restored"], &status["records_in"]), (&Value::from(second), &Value::from(2)));
    assert_eq!(status["operators"][1]["name"], "totals");

    // in good order nothing is lost that was accepted
    service.order("ann", 10_000);
    service.process.ends_well();
    let mut service = Service::start(&scratch);
    service.order("ann", 1);
    service.checkpoint();
    service.expect_total("ann", 11_057);
    service.process.ends_well();
}
