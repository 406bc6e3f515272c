//! A broker behind a proxy that knows enough of Kafka's protocol to disturb the commits of one client: requests and
//! replies that are late or lost.

use super::broker::Broker;
use millstream::framework::spawn;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// The number of the request that ends a transaction.
const END_TXN: i16 = 26;

/// What happens to the commits of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The broker gets the request when that is over.
    LateRequest,
    /// The client gets the reply when that is over.
    LateReply,
    /// The connection breaks before the broker gets the request. Once.
    LostRequest,
    /// The connection breaks before the client gets the reply. Once.
    LostReply,
    /// The connection breaks before the broker gets the request, which it gets when that is over. Once.
    Overdue,
}

#[derive(Default)]
struct State {
    upstream: String,
    fault: Option<(String, Fault)>,
    /// How many requests have met it.
    met: usize,
    /// A request is under way whose sender is gone.
    is_overdue: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn until<T>(&self, holds: impl Fn(&State) -> Option<T>) -> T {
        let mut state = self.state.lock().unwrap();
        loop {
            match holds(&state) {
                Some(found) => return found,
                None => state = self.changed.wait(state).unwrap(),
            }
        }
    }
}

/// A broker that nobody reaches but through the proxy.
pub(crate) struct Proxy {
    pub(crate) broker: Broker,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, shared) = (listener.local_addr().unwrap().port(), Arc::new(Shared::default()));
        let passes = shared.clone();
        let accept = move || {
            for client in listener.incoming() {
                let (client, shared) = (client.unwrap(), passes.clone());
                spawn::thread("proxy", move || pass(client, &shared)).unwrap();
            }
        };
        spawn::thread("proxy", accept).unwrap();
        let broker = Broker::own(&[&format!("advertised.listeners=CLIENT://127.0.0.1:{port}")]);
        shared.change(|state| state.upstream = broker.address.clone());
        Self { broker, shared }
    }

    /// From now on.
    pub(crate) fn disturb(&self, client_id: &str, fault: Fault) {
        self.shared.change(|state| (state.fault, state.met) = (Some((client_id.into(), fault)), 0));
    }

    /// What was held up goes on.
    pub(crate) fn end(&self) {
        self.shared.change(|state| (state.fault, state.is_overdue) = (None, false));
    }

    /// Whether a commit was disturbed.
    pub(crate) fn has_met(&self) -> bool {
        self.shared.state.lock().unwrap().met > 0
    }
}

/// A connection, for as long as both ends want it.
fn pass(client: TcpStream, shared: &Arc<Shared>) {
    let upstream = shared.until(|state| Some(state.upstream.clone()).filter(|address| !address.is_empty()));
    let Ok(broker) = TcpStream::connect(upstream) else { return };
    // whether replies are held up on this connection
    let is_held = Arc::new(Mutex::new(false));
    let (back, forth, held, waits) =
        (client.try_clone().unwrap(), broker.try_clone().unwrap(), is_held.clone(), shared.clone());
    spawn::thread("proxy", move || replies((forth, back), &held, &waits)).unwrap();
    let _ = requests((&client, &broker), &is_held, shared);
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

fn requests(
    (mut client, mut broker): (&TcpStream, &TcpStream),
    is_held: &Mutex<bool>,
    shared: &Shared,
) -> std::io::Result<()> {
    loop {
        let mut size = [0; 4];
        client.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        client.read_exact(&mut request)?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let id = request.get(10..10 + usize::try_from(number(8)).unwrap_or(0)).unwrap_or_default();
        let fault = {
            let mut state = shared.state.lock().unwrap();
            let fault = state.fault.clone().filter(|(of, _)| number(0) == END_TXN && of.as_bytes() == id);
            let fault = fault.map(|(_, fault)| fault);
            state.met += usize::from(fault.is_some());
            if matches!(fault, Some(Fault::LostRequest | Fault::LostReply | Fault::Overdue)) {
                state.fault = None;
            }
            state.is_overdue |= fault == Some(Fault::Overdue);
            fault
        };
        let over = |state: &State| state.fault.is_none().then_some(());
        match fault {
            Some(Fault::LateRequest) => shared.until(over),
            Some(Fault::LateReply | Fault::LostReply) => *is_held.lock().unwrap() = true,
            Some(Fault::LostRequest) => return Ok(()),
            Some(Fault::Overdue) => {
                client.shutdown(Shutdown::Both)?;
                shared.until(|state| (!state.is_overdue).then_some(()));
            }
            None => {}
        }
        broker.write_all(&size)?;
        broker.write_all(&request)?;
        if matches!(fault, Some(Fault::LostReply | Fault::Overdue)) {
            // until the broker has answered, which nobody sees
            std::thread::sleep(std::time::Duration::from_millis(300));
            return Ok(());
        }
    }
}

fn replies(
    (mut broker, mut client): (TcpStream, TcpStream),
    is_held: &Mutex<bool>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = broker.read(&mut buffer)?;
        if read == 0 {
            return client.shutdown(Shutdown::Both);
        }
        if *is_held.lock().unwrap() {
            shared.until(|state| state.fault.is_none().then_some(()));
            // of a reply that is lost, the connection breaks meanwhile
            std::thread::sleep(std::time::Duration::from_millis(400));
            *is_held.lock().unwrap() = false;
        }
        client.write_all(&buffer[..read])?;
    }
}
