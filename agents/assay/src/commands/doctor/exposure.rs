//! Checks of who else can reach, or read, what this machine serves and asks.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use assay_chain::redact;
use reqwest::Url;
use tokio::net::TcpStream;

use super::{Patient, Said};
use crate::network::Network;

/// A port of this machine answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(2);
/// What /proc/net/tcp calls a socket that listens.
const LISTENS: &str = "0A";
/// The name of this program's processes.
const PROGRAM: &str = "assay";

/// What commands and agents are pointed at.
fn services(network: &Network) -> Vec<(&'static str, Url)> {
    let rpc = network.rpc_url.split(',').map(|url| ("RPC", url));
    let others = [("IPFS", Some(&network.ipfs_url)), ("HTTP", network.http_url.as_ref())];
    let others = others.into_iter().filter_map(|(what, url)| Some((what, url?.as_str())));
    rpc.chain(others).filter_map(|(what, url)| Some((what, url.trim().parse().ok()?))).collect()
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
    })
}

/// Another address of this machine than loopback. Nothing is sent: the socket only finds its route.
fn outside_address() -> Option<IpAddr> {
    // 192.0.2.0/24 is kept free for documentation.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// Neither a chain's RPC, a content store nor metrics ask who somebody is.
pub async fn exposure(patient: &Patient) -> Said {
    let open = listeners().into_iter().filter(|address| !address.ip().to_canonical().is_loopback());
    let mut open: Vec<String> =
        open.map(|address| format!("{PROGRAM}, which listens on {address}")).collect();
    let services = patient.network.as_ref().map(services).unwrap_or_default();
    if let Some(outside) = outside_address() {
        for (what, url) in services {
            let own = is_loopback(&url) || url.host_str() == Some(&outside.to_string());
            let Some(port) = url.port_or_known_default().filter(|_| own) else { continue };
            let address = SocketAddr::new(outside, port);
            let answer = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
            if matches!(answer, Ok(Ok(_))) {
                open.push(format!("{what} at {address}"));
            }
        }
    }
    match open.is_empty() {
        true => Said::ok("what serves here answers on loopback alone"),
        false => Said::warning(
            format!("others can reach {}", open.join(" and ")),
            "whoever reaches them can use them: listen on 127.0.0.1, or put a firewall or a proxy with TLS before them",
        ),
    }
}

/// Whoever is between two machines reads, and changes, what goes without TLS.
pub async fn transport(patient: &Patient) -> Said {
    let Some(network) = &patient.network else { return Said::skipped("no network is described") };
    let is_clear = |url: &Url| matches!(url.scheme(), "http" | "ws") && !is_loopback(url);
    let clear: Vec<String> = services(network)
        .into_iter()
        .filter(|(_, url)| is_clear(url))
        .map(|(what, url)| format!("{what} at {}", redact(url.as_str())))
        .collect();
    match clear.is_empty() {
        true => Said::ok("what leaves this machine goes with TLS"),
        false => Said::warning(
            format!("without TLS: {}", clear.join(" and ")),
            "use https or wss; for IPFS, and where there is none, a tunnel that ends on 127.0.0.1",
        ),
    }
}

/// Where processes of this program listen, as Linux tells those of one's own; nothing elsewhere.
fn listeners() -> BTreeSet<SocketAddr> {
    let sockets = sockets();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let rows = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    rows.filter_map(listener)
        .filter(|(_, inode)| sockets.contains(*inode))
        .map(|(address, _)| address)
        .collect()
}

/// Inodes of the sockets of this program's processes.
fn sockets() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.map(|process| process.path()).filter(|path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == PROGRAM)
    });
    let files = ours.flat_map(|path| fs::read_dir(path.join("fd")).into_iter().flatten().flatten());
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// Address and inode of a row of /proc/net/tcp, if the socket listens.
fn listener(row: &str) -> Option<(SocketAddr, &str)> {
    let columns: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
    let (address, port) = local.split_once(':').filter(|_| *state == LISTENS)?;
    // Words in the machine's own order of bytes.
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok().filter(|word| word.len() == 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).into(),
    };
    Some((SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_proc_are_read() {
        let row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0";
        let (address, inode) = listener(row).unwrap();
        assert_eq!((address.to_string().as_str(), inode), ("127.0.0.1:8080", "4711"));
        let row = "   1: 00000000000000000000000001000000:14E9 0:0 0A 0:0 00:0 0 0 0 12 1 0 100 0";
        assert_eq!(listener(row).unwrap().0.to_string(), "[::1]:5353");
        for none in [
            "",
            "   0: 0100007F:1F90 00000000:0000 01 0:0 00:0 0 0 0 4711",
            "   0: 01:1F90 0:0 0A 0:0 0:0 0 0 0 7",
        ] {
            assert_eq!(listener(none), None, "{none}");
        }
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for (url, own) in [
            ("http://127.0.0.1:8545", true),
            ("ws://localhost:8545", true),
            ("http://[::1]:5001", true),
            ("http://10.0.0.7:8545", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), own, "{url}");
        }
    }
}
