//! Networks that a job names: `10.0.0.0/8`, `fd00::/8`.
//!
//! In: text of a job file. Out: networks, and whether an address lies in one.
//! Invariant: a network is written as it was read: its first address, and how many bits all of its
//! addresses share.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses of IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
            && prefix(address, self.bits) == prefix(self.first, self.bits)
    }
}

/// An address without all but its first `bits`.
fn prefix(address: IpAddr, bits: u32) -> u128 {
    let (number, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    // A shift by all 128 bits leaves nothing.
    number.checked_shr(width - bits).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let refuse = |why: &str| Err(format!("`{text}` is not a network, such as 10.0.0.0/8: {why}"));
        let Some((first, bits)) = text.split_once('/') else { return refuse("it has no `/`") };
        let Ok(first) = first.parse::<IpAddr>() else {
            return refuse("there is no address before the `/`");
        };
        let width = if first.is_ipv4() { 32 } else { 128 };
        // `parse` alone takes `+8` and `08`.
        let number = bits.parse::<u32>().ok().filter(|number| *number <= width && number.to_string() == bits);
        let Some(bits) = number else {
            return refuse(&format!("behind the `/` stands a number from 0 to {width}"));
        };
        let network = Network { first, bits };
        let begins = |number: u128| prefix(first, width) == number;
        let shortened = prefix(first, bits).checked_shl(width - bits).unwrap_or(0);
        match begins(shortened) {
            true => Ok(network),
            false => refuse("the address is not the first of its network"),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_its_network_and_in_no_other() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1/128", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.contains(inside.parse().unwrap()), "{inside} in {network}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{outside} in {network}");
        }
    }

    #[test]
    fn nonsense_is_no_network() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "/8",
            "10.0.0.1/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "localhost/8",
            "fd00::1/8",
            "::/129",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "0x0a.0.0.0/8",
            "[::1]/128",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
