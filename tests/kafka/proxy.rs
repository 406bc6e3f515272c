//! A broker behind a proxy that knows enough of Kafka's protocol to disturb the clients of a job: requests and replies
//! that are late or lost, and errors in place of what the broker says.

use super::broker::Broker;
use super::wire::{Api, Head, errors_of, refusal, timeout_of};
use millstream::framework::spawn;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};

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

/// How a request meets an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The broker does what it is asked for, and the reply says that it has failed.
    Applied,
    /// The broker never sees the request.
    Refused,
}

/// An error, by its number, that requests of this kind meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) api: Api,
    pub(crate) code: i16,
    pub(crate) way: Way,
    /// How many of them, before it is the turn of the next error. None: all, at any time, and the next does not wait.
    pub(crate) times: Option<usize>,
}

impl Injected {
    /// One more request has met it.
    fn count(&mut self) {
        self.times = self.times.map(|times| times - 1);
    }
}

#[derive(Default)]
struct State {
    upstream: String,
    fault: Option<(String, Fault)>,
    /// How many requests have met it.
    met: usize,
    /// A request is under way whose sender is gone.
    is_overdue: bool,
    /// Errors for clients of these names.
    injected: (Vec<String>, Vec<Injected>),
    /// What the transactions of all clients have for a time-out, in milliseconds, whatever they ask for.
    timeout_ms: Option<i32>,
    /// Connections of clients with these names break.
    cut: Vec<String>,
}

impl State {
    /// The error that a request meets, if it is its turn.
    fn meets(&mut self, head: &Head, way: Way) -> Option<&mut Injected> {
        let (clients, injected) = &mut self.injected;
        let fits = |one: &Injected| head.api == Some(one.api) && one.way == way;
        let next = injected.iter_mut().find(|one| match one.times {
            Some(times) => times > 0,
            None => fits(one),
        })?;
        (fits(next) && clients.contains(&head.client)).then_some(next)
    }
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
        Self::of(&[])
    }

    /// One whose broker has these settings.
    pub(crate) fn of(settings: &[&str]) -> Self {
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
        let advertised = format!("advertised.listeners=CLIENT://127.0.0.1:{port}");
        let mut broker = Broker::own(&[&[advertised.as_str()][..], settings].concat());
        let upstream = std::mem::replace(&mut broker.address, format!("127.0.0.1:{port}"));
        shared.change(|state| state.upstream = upstream);
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

    /// From now on, one after the other, and those that have no end at any time, in place of what was to be injected
    /// before.
    pub(crate) fn inject(&self, clients: &[&str], errors: &[Injected]) {
        let clients = clients.iter().map(|&name| name.to_owned()).collect();
        self.shared.change(|state| state.injected = (clients, errors.to_vec()));
    }

    /// Those with an end that are still to be met.
    pub(crate) fn left(&self) -> Vec<Injected> {
        let state = self.shared.state.lock().unwrap();
        state.injected.1.iter().filter(|one| one.times.is_some_and(|times| times > 0)).copied().collect()
    }

    /// From now on all transactions have this time-out.
    pub(crate) fn shorten(&self, timeout_ms: i32) {
        self.shared.change(|state| state.timeout_ms = Some(timeout_ms));
    }

    /// From now on clients with these names do not reach the broker; all others do.
    pub(crate) fn cut(&self, clients: &[&str]) {
        self.shared.change(|state| state.cut = clients.iter().map(|&name| name.to_owned()).collect());
    }

    /// Whether a commit was disturbed.
    pub(crate) fn has_met(&self) -> bool {
        self.shared.state.lock().unwrap().met > 0
    }
}

/// A connection.
#[derive(Default)]
struct Connection {
    /// Whether replies are held up.
    is_held: AtomicBool,
    /// What the broker was asked, by number.
    asked: Mutex<HashMap<i32, Head>>,
    /// Taken by whoever writes to the client.
    writes: Mutex<()>,
}

/// A connection, for as long as both ends want it.
fn pass(client: TcpStream, shared: &Arc<Shared>) {
    let upstream = shared.until(|state| Some(state.upstream.clone()).filter(|address| !address.is_empty()));
    let Ok(broker) = TcpStream::connect(upstream) else { return };
    [&client, &broker].iter().for_each(|stream| stream.set_nodelay(true).unwrap());
    let connection = Arc::<Connection>::default();
    let (back, forth, its, waits) =
        (client.try_clone().unwrap(), broker.try_clone().unwrap(), connection.clone(), shared.clone());
    let answers = move || {
        let _ = replies((&forth, &back), &its, &waits);
        let _ = back.shutdown(Shutdown::Both);
    };
    spawn::thread("proxy", answers).unwrap();
    let _ = requests((&client, &broker), &connection, shared);
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

/// A message with its size before it.
fn message(mut from: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut size = [0; 4];
    from.read_exact(&mut size)?;
    let mut message = vec![0; u32::from_be_bytes(size) as usize];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn send(mut to: &TcpStream, message: &[u8]) -> std::io::Result<()> {
    to.write_all(&[&(message.len() as u32).to_be_bytes(), message].concat())
}

fn requests(
    (client, broker): (&TcpStream, &TcpStream),
    connection: &Connection,
    shared: &Shared,
) -> std::io::Result<()> {
    loop {
        let mut request = message(client)?;
        let head = Head::of(&request);
        let (fault, error) = {
            let mut state = shared.state.lock().unwrap();
            if state.cut.contains(&head.client) {
                return Ok(());
            }
            let fault = state.fault.clone().filter(|(of, _)| head.api == Some(Api::EndTxn) && *of == head.client);
            let fault = fault.map(|(_, fault)| fault);
            state.met += usize::from(fault.is_some());
            if matches!(fault, Some(Fault::LostRequest | Fault::LostReply | Fault::Overdue)) {
                state.fault = None;
            }
            state.is_overdue |= fault == Some(Fault::Overdue);
            if let Some(timeout_ms) = state.timeout_ms.filter(|_| head.api == Some(Api::InitProducerId)) {
                let at = timeout_of(&head, &request);
                request[at..at + 4].copy_from_slice(&timeout_ms.to_be_bytes());
            }
            let error = state.meets(&head, Way::Refused).map(|error| {
                error.count();
                error.code
            });
            (fault, error)
        };
        if let Some(code) = error {
            let _alone = connection.writes.lock().unwrap();
            send(client, &refusal(&head, &request, code))?;
            continue;
        }
        let over = |state: &State| state.fault.is_none().then_some(());
        match fault {
            Some(Fault::LateRequest) => shared.until(over),
            Some(Fault::LateReply | Fault::LostReply) => connection.is_held.store(true, Relaxed),
            Some(Fault::LostRequest) => return Ok(()),
            Some(Fault::Overdue) => {
                client.shutdown(Shutdown::Both)?;
                shared.until(|state| (!state.is_overdue).then_some(()));
            }
            None => {}
        }
        connection.asked.lock().unwrap().insert(head.id, head);
        send(broker, &request)?;
        if matches!(fault, Some(Fault::LostReply | Fault::Overdue)) {
            // until the broker has answered, which nobody sees
            std::thread::sleep(std::time::Duration::from_millis(300));
            return Ok(());
        }
    }
}

fn replies(
    (broker, client): (&TcpStream, &TcpStream),
    connection: &Connection,
    shared: &Shared,
) -> std::io::Result<()> {
    loop {
        let mut reply = message(broker)?;
        let id = i32::from_be_bytes(reply[..4].try_into().unwrap());
        let head = connection.asked.lock().unwrap().remove(&id);
        if let Some(head) = &head
            && let Some(error) = shared.state.lock().unwrap().meets(head, Way::Applied)
        {
            let found = errors_of(head, &reply);
            if !found.is_empty() {
                error.count();
            }
            found.into_iter().for_each(|at| reply[at..at + 2].copy_from_slice(&error.code.to_be_bytes()));
        }
        if connection.is_held.load(Relaxed) {
            shared.until(|state| state.fault.is_none().then_some(()));
            // of a reply that is lost, the connection breaks meanwhile
            std::thread::sleep(std::time::Duration::from_millis(400));
            connection.is_held.store(false, Relaxed);
        }
        let _alone = connection.writes.lock().unwrap();
        send(client, &reply)?;
    }
}
