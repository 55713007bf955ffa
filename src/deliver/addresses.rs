//! Where webhooks may go: to public addresses, and into networks that the job names.
//!
//! In: hosts, and the addresses that their names have at the moment of the connection. Out: those
//! that may be connected to.
//! Invariant: a connection goes to an address that was judged after the look-up of its name; who is
//! refused learns that alone, and not what was there.

use crate::job::networks::Network;
use crate::planted::Bug;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Look-ups under way at once: one that hangs keeps a thread after its attempt was given up.
const LOOKUPS_MAX: usize = 64;

/// Which addresses may be connected to.
#[derive(Clone)]
pub struct Guard {
    networks: Arc<[Network]>,
    /// Whether public addresses may be, too.
    public: bool,
    lookups: Arc<Semaphore>,
}

/// The addresses of a name, or the host itself, may not be connected to.
#[derive(Debug)]
pub struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address is not allowed: https to a public address, or a network of `deliver.networks_allowed`")
    }
}

impl std::error::Error for NotAllowed {}

impl Guard {
    pub fn new(networks: &[Network], public: bool) -> Guard {
        Guard { networks: networks.into(), public, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address)) || (self.public && is_public(address))
    }

    /// Whether a URL's host may be connected to, as far as it can be known before its name is looked
    /// up: the client looks up names alone.
    pub fn allows_host(&self, host: Option<url::Host<&str>>) -> bool {
        match host {
            Some(url::Host::Ipv4(address)) => self.allows(address.into()),
            Some(url::Host::Ipv6(address)) => self.allows(address.into()),
            Some(url::Host::Domain(_)) => self.public || !self.networks.is_empty(),
            None => false,
        }
    }

    /// Those of the addresses that may be connected to. Errors when there is none.
    fn allowed(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NotAllowed> {
        if Bug::PrivateAddressAllowed.is_planted() {
            return Ok(addresses);
        }
        let allowed: Vec<SocketAddr> = addresses.into_iter().filter(|one| self.allows(one.ip())).collect();
        if allowed.is_empty() { Err(NotAllowed) } else { Ok(allowed) }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let permit = guard.lookups.clone().acquire_owned().await?;
            let found = tokio::task::spawn_blocking(move || {
                let _until_it_ends = permit;
                (name.as_str(), 0).to_socket_addrs().map(|found| found.collect::<Vec<_>>())
            });
            let found = found.await??;
            if found.is_empty() {
                return Err("the name has no address".into());
            }
            let addresses: Addrs = Box::new(guard.allowed(found)?.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address can be reached from anywhere and is one host's: by the registries of special
/// addresses that IANA keeps (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match a {
        // This network, private, loopback.
        0 | 10 | 127 => true,
        // Shared by carriers.
        100 => (64..128).contains(&b),
        // Link-local, where clouds keep their metadata.
        169 => b == 254,
        172 => (16..32).contains(&b),
        // Protocols, documentation, relays of 6to4, private.
        192 => matches!((b, c), (0, 0) | (0, 2) | (88, 99) | (168, _)),
        // Benchmarks, documentation.
        198 => matches!((b, c), (18 | 19, _) | (51, 100)),
        203 => (b, c) == (0, 113),
        // Multicast, reserved, broadcast.
        _ => a >= 224,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = address.segments();
    // A translator's address is as public as the address that it stands for.
    if [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(Ipv4Addr::from_bits(address.to_bits() as u32));
    }
    let is_special = match a {
        // Protocols (Teredo among them), documentation.
        0x2001 => b < 0x200 || b == 0xdb8,
        // 6to4: it stands for any address of IPv4.
        0x2002 => true,
        0x3fff => b < 0x1000,
        // All that was given out as global unicast: no loopback, no private or link-local address, no
        // multicast, and none that stands for one of IPv4.
        _ => a & 0xe000 != 0x2000,
    };
    !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: &[&str] = &[
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
        "64:ff9b::10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2002:808:808::",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "1::1",
        "8000::1",
    ];

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.1",
        "203.0.112.1",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00:1450::1",
        "2003::1",
        "3ffe:ffff::1",
        "3fff:1000::1",
    ];

    #[test]
    fn addresses_are_public_or_not() {
        let guard = Guard::new(&[], true);
        for address in SPECIAL {
            assert!(!guard.allows(address.parse().unwrap()), "{address}");
        }
        for address in PUBLIC {
            assert!(guard.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn networks_of_the_job_are_allowed_and_for_plain_connections_nothing_else_is() {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        for public in [true, false] {
            let guard = Guard::new(&networks, public);
            for inside in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::7"] {
                assert!(guard.allows(inside.parse().unwrap()), "{inside}");
            }
            assert!(!guard.allows("192.168.0.1".parse().unwrap()));
            assert_eq!(guard.allows("8.8.8.8".parse().unwrap()), public);
        }
    }

    #[test]
    fn hosts_that_are_addresses_are_judged_however_they_are_written() {
        let guard = Guard::new(&[], true);
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[0:0:0:0:0:ffff:7f00:1]",
            "[::127.0.0.1]",
            "0",
            "0.0.0.0",
            "[::]",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "[fe80::1]",
            "[64:ff9b::a9fe:a9fe]",
            "\u{ff11}27.0.0.1",
            "127\u{3002}0.0.1",
            "%31%32%37.0.0.1",
        ] {
            let url = url::Url::parse(&format!("https://{host}/")).unwrap();
            assert!(!guard.allows_host(url.host()), "{host}: {:?}", url.host());
        }
        let url = url::Url::parse("https://example.com/").unwrap();
        assert!(guard.allows_host(url.host()) && !Guard::new(&[], false).allows_host(url.host()));
    }

    #[test]
    fn of_the_addresses_of_a_name_only_those_that_are_allowed_are_left() {
        let guard = Guard::new(&[], true);
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = addresses(&["10.0.0.1:0", "8.8.8.8:0", "[::1]:0"]);
        assert_eq!(guard.allowed(mixed).unwrap(), addresses(&["8.8.8.8:0"]));
        assert!(guard.allowed(addresses(&["10.0.0.1:0", "[fe80::1]:0"])).is_err());
    }
}
