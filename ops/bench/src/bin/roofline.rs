//! The least that three nodes and a producer must do, with no broker in it: the client sends batches; the
//! node that leads receives, checksums, writes and fdatasyncs, and sends them to two peers that do the same;
//! it acknowledges when all three have. Same bytes, same batch size, same number outstanding, same group commit
//! into one prewritten file per node; no protocol, no metadata, no reads. What a broker reaches is
//! reported as a share of this, from the same run on the same machine.
//!
//! Each node and the client are processes of their own (the program starts itself); blocking sockets and a few
//! threads. A frame is `len u32, crc32c u32, id u64, payload`; an acknowledgement is the id.
#![allow(clippy::disallowed_methods, reason = "a benchmark: clock, files and sockets are what it measures")]

use clap::Parser;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use strandline_bench::procs;

const NODES: usize = 3;
const JOURNAL_BYTES: u64 = 256 << 20;
const FRAME_HEADER: usize = 16;

#[derive(Parser, Clone)]
#[command(about = "Moves bytes as a replicated broker must, with no broker in it")]
struct Args {
    /// Bytes of one batch.
    #[arg(long, default_value_t = 65536)]
    batch: usize,
    /// Batches outstanding at each leader.
    #[arg(long, default_value_t = 20)]
    outstanding: usize,
    /// Seconds to run.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the nodes keep their files.
    #[arg(long, default_value = "roofline-data")]
    dir: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Run as this node (used by the program itself).
    #[arg(long, hide = true)]
    node: Option<usize>,
    /// First port (used by the program itself).
    #[arg(long, default_value_t = 7670)]
    port: u16,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    match args.node {
        Some(node) => serve(node, &args),
        None => drive(&args),
    }
}

// ---- a node ----

/// A batch on its way to the disk, and who waits for it.
struct Item {
    payload: Vec<u8>,
    waiter: Waiter,
}

#[derive(Clone, Copy)]
enum Waiter {
    /// Led here: counts as one of three.
    Led(u64),
    /// Led by the peer on this connection.
    Peer(usize, u64),
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Vec<Item>>,
    wake: Condvar,
    /// Acknowledgements still missing for batches led here, and the client's connection.
    led: Mutex<HashMap<u64, usize>>,
    client: Mutex<Option<TcpStream>>,
    peers_back: Mutex<Vec<TcpStream>>,
}

impl Shared {
    /// One of the three has it. Returns the id when that was the last.
    fn acknowledge(&self, ids: impl Iterator<Item = u64>) {
        let mut done = Vec::new();
        {
            let mut led = self.led.lock().unwrap();
            for id in ids {
                let missing = led.get_mut(&id).expect("a batch led here");
                *missing -= 1;
                if *missing == 0 {
                    led.remove(&id);
                    done.extend_from_slice(&id.to_le_bytes());
                }
            }
        }
        if !done.is_empty()
            && let Some(client) = self.client.lock().unwrap().as_mut()
        {
            let _ = client.write_all(&done);
        }
    }

    fn push(&self, item: Item) {
        self.queue.lock().unwrap().push(item);
        self.wake.notify_one();
    }
}

fn serve(node: usize, args: &Args) -> std::io::Result<()> {
    let shared = Arc::new(Shared::default());
    let journal = prewritten(&args.dir.join(format!("journal-{node}")))?;
    let writer = shared.clone();
    thread::spawn(move || write_journal(&writer, &journal));
    let listener = TcpListener::bind(("127.0.0.1", args.port + node as u16))?;
    let mut links = Vec::new();
    for peer in (0..NODES).filter(|peer| *peer != node) {
        let mut link = connect(args.port + peer as u16);
        link.write_all(&[1])?;
        let back = link.try_clone()?;
        let shared = shared.clone();
        thread::spawn(move || read_acknowledgements(back, |ids| shared.acknowledge(ids.into_iter())));
        links.push(Arc::new(Mutex::new(link)));
    }
    // What preparing the journal took is not part of what is measured: the driver takes it off.
    println!("ready {}", procs::rusage_seconds(libc::RUSAGE_SELF));
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let shared = shared.clone();
        let links = links.clone();
        thread::spawn(move || {
            if kind[0] == 0 {
                *shared.client.lock().unwrap() = stream.try_clone().ok();
                read_frames(stream, |header, payload, id| {
                    shared.led.lock().unwrap().insert(id, NODES);
                    for link in &links {
                        let mut link = link.lock().unwrap();
                        let _ =
                            write_all_vectored(&mut link, &[IoSlice::new(header), IoSlice::new(&payload)]);
                    }
                    shared.push(Item { payload, waiter: Waiter::Led(id) });
                });
                std::process::exit(0); // The client is done.
            }
            let mut back = shared.peers_back.lock().unwrap();
            let slot = back.len();
            back.push(stream.try_clone().expect("a socket can be shared"));
            drop(back);
            read_frames(stream, |_, payload, id| {
                shared.push(Item { payload, waiter: Waiter::Peer(slot, id) })
            });
        });
    }
    Ok(())
}

fn read_frames(stream: TcpStream, mut take: impl FnMut(&[u8; FRAME_HEADER], Vec<u8>, u64)) {
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut header = [0; FRAME_HEADER];
    while reader.read_exact(&mut header).is_ok() {
        let len = u32::from_le_bytes(header[0..4].try_into().unwrap()) as usize;
        let crc = u32::from_le_bytes(header[4..8].try_into().unwrap());
        let id = u64::from_le_bytes(header[8..16].try_into().unwrap());
        let mut payload = vec![0; len];
        if reader.read_exact(&mut payload).is_err() {
            return;
        }
        assert_eq!(strandline_record::crc32c(&payload), crc, "damaged on the way");
        take(&header, payload, id);
    }
}

fn write_journal(shared: &Shared, journal: &File) {
    let mut at = 0;
    loop {
        let items = {
            let mut queue = shared.queue.lock().unwrap();
            while queue.is_empty() {
                queue = shared.wake.wait(queue).unwrap();
            }
            std::mem::take(&mut *queue)
        };
        let bytes: usize = items.iter().map(|item| item.payload.len()).sum();
        if at + bytes as u64 > JOURNAL_BYTES {
            at = 0;
        }
        let slices: Vec<libc::iovec> = items
            .iter()
            .map(|item| libc::iovec {
                iov_base: item.payload.as_ptr() as *mut _,
                iov_len: item.payload.len(),
            })
            .collect();
        for chunk in slices.chunks(1024) {
            // SAFETY: the slices point into `items`, which live until after the call.
            let written = unsafe {
                libc::pwritev(journal.as_raw_fd(), chunk.as_ptr(), chunk.len() as i32, at as libc::off_t)
            };
            let wanted: usize = chunk.iter().map(|slice| slice.iov_len).sum();
            assert_eq!(written as usize, wanted, "a short write");
            at += wanted as u64;
        }
        journal.sync_data().expect("fdatasync");
        let led = items.iter().filter_map(|item| match item.waiter {
            Waiter::Led(id) => Some(id),
            Waiter::Peer(..) => None,
        });
        shared.acknowledge(led);
        let mut back: HashMap<usize, Vec<u8>> = HashMap::new();
        for item in &items {
            if let Waiter::Peer(slot, id) = item.waiter {
                back.entry(slot).or_default().extend_from_slice(&id.to_le_bytes());
            }
        }
        let mut peers = shared.peers_back.lock().unwrap();
        for (slot, ids) in back {
            let _ = peers[slot].write_all(&ids);
        }
    }
}

fn read_acknowledgements(mut stream: TcpStream, mut take: impl FnMut(Vec<u64>)) {
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        let whole = filled / 8 * 8;
        take(buffer[..whole].chunks(8).map(|id| u64::from_le_bytes(id.try_into().unwrap())).collect());
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn prewritten(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
    let zeros = vec![0; 1 << 20];
    for at in 0..JOURNAL_BYTES >> 20 {
        file.write_all_at(&zeros, at << 20)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn connect(port: u16) -> TcpStream {
    for _ in 0..2000 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_nodelay(true).expect("a socket option");
            return stream;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing listens on port {port}")
}

fn write_all_vectored(stream: &mut TcpStream, slices: &[IoSlice<'_>]) -> std::io::Result<()> {
    let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut written = stream.write_vectored(slices)?;
    for slice in slices {
        if written >= slice.len() {
            written -= slice.len();
        } else {
            stream.write_all(&slice[written..])?;
            written = 0;
        }
    }
    debug_assert!(wanted > 0);
    Ok(())
}

// ---- the client ----

struct Window {
    free: Mutex<usize>,
    wake: Condvar,
    latencies: Mutex<Vec<u32>>,
    sent: Mutex<HashMap<u64, Instant>>,
}

fn drive(args: &Args) -> std::io::Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let (mut nodes, preparing) = start_nodes(args)?;
    let payload: Arc<Vec<u8>> = Arc::new((0..args.batch).map(|i| (i * 31 + i / 251) as u8).collect());
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let begun = Instant::now();
    let clients: Vec<_> = (0..NODES)
        .map(|node| {
            let (args, payload) = (args.clone(), payload.clone());
            thread::spawn(move || drive_leader(&args, node, &payload, end))
        })
        .collect();
    let mut latencies = Vec::new();
    let mut open = Vec::new();
    for client in clients {
        let (taken, stream) = client.join().expect("a client thread")?;
        latencies.extend(taken);
        open.push(stream);
    }
    let seconds = begun.elapsed().as_secs_f64();
    // A node ends with its client's connection, so all stay open until nobody needs an acknowledgement any more.
    for stream in open {
        stream.shutdown(std::net::Shutdown::Both)?;
    }
    for node in &mut nodes {
        node.wait()?;
    }
    let cpu =
        procs::rusage_seconds(libc::RUSAGE_SELF) + procs::rusage_seconds(libc::RUSAGE_CHILDREN) - preparing;
    std::fs::remove_dir_all(&args.dir)?;
    report(args, latencies, seconds, cpu);
    Ok(())
}

/// Starts the nodes and waits until they serve. Also the CPU seconds that they took until then.
fn start_nodes(args: &Args) -> std::io::Result<(Vec<Child>, f64)> {
    let program = std::env::current_exe()?;
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let child = Command::new(&program)
            .args(["--node", &node.to_string(), "--port", &args.port.to_string()])
            .arg("--dir")
            .arg(&args.dir)
            .stdout(Stdio::piped())
            .spawn()?;
        nodes.push(child);
    }
    let mut preparing = 0.0;
    for node in &mut nodes {
        let mut line = String::new();
        BufReader::new(node.stdout.as_mut().expect("piped")).read_line(&mut line)?;
        preparing += line
            .strip_prefix("ready ")
            .and_then(|seconds| seconds.trim().parse::<f64>().ok())
            .ok_or_else(|| std::io::Error::other(format!("a node said {line:?} instead of being ready")))?;
    }
    Ok((nodes, preparing))
}

fn drive_leader(
    args: &Args,
    node: usize,
    payload: &[u8],
    end: Instant,
) -> std::io::Result<(Vec<u32>, TcpStream)> {
    let mut stream = connect(args.port + node as u16);
    stream.write_all(&[0])?;
    let window = Arc::new(Window {
        free: Mutex::new(args.outstanding),
        wake: Condvar::new(),
        latencies: Mutex::default(),
        sent: Mutex::default(),
    });
    let (back, seen) = (stream.try_clone()?, window.clone());
    thread::spawn(move || {
        read_acknowledgements(back, |ids| {
            let now = Instant::now();
            let mut sent = seen.sent.lock().unwrap();
            let mut latencies = seen.latencies.lock().unwrap();
            for id in &ids {
                let at = sent.remove(id).expect("a batch that was sent");
                latencies.push((now - at).as_micros() as u32);
            }
            *seen.free.lock().unwrap() += ids.len();
            seen.wake.notify_one();
        });
    });
    let mut id = 0u64;
    while Instant::now() < end {
        let mut free = window.free.lock().unwrap();
        while *free == 0 {
            free = window.wake.wait(free).unwrap();
        }
        *free -= 1;
        drop(free);
        id += 1;
        window.sent.lock().unwrap().insert(id, Instant::now());
        let mut header = [0; FRAME_HEADER];
        header[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        // A producer checksums what it sends.
        header[4..8].copy_from_slice(&strandline_record::crc32c(payload).to_le_bytes());
        header[8..16].copy_from_slice(&id.to_le_bytes());
        write_all_vectored(&mut stream, &[IoSlice::new(&header), IoSlice::new(payload)])?;
    }
    let mut free = window.free.lock().unwrap();
    while *free < args.outstanding {
        free = window.wake.wait(free).unwrap();
    }
    drop(free);
    let latencies = std::mem::take(&mut *window.latencies.lock().unwrap());
    Ok((latencies, stream))
}

fn report(args: &Args, mut latencies: Vec<u32>, seconds: f64, cpu: f64) {
    latencies.sort_unstable();
    let megabytes = (latencies.len() * args.batch) as f64 / 1e6;
    let quantile = |q: f64| latencies.get((latencies.len() as f64 * q) as usize).copied().unwrap_or(0);
    let rate = megabytes / seconds;
    let per_gb = cpu / (megabytes / 1000.0);
    if args.json {
        let json = serde_json::json!({
            "megabytes_per_second": rate, "cpu_seconds_per_gb": per_gb, "p50_us": quantile(0.5),
            "p99_us": quantile(0.99), "batch_bytes": args.batch, "outstanding": args.outstanding * NODES,
        });
        println!("{json}");
    } else {
        println!(
            "roofline: {rate:.0} MB/s  {per_gb:.2} CPU s/GB  p50 {} us  p99 {} us  (batches of {} bytes, {} outstanding, acks from 3 nodes)",
            quantile(0.5),
            quantile(0.99),
            args.batch,
            args.outstanding * NODES
        );
    }
}
