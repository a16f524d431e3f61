//! The subset format of DataComp: the uids that are kept, as a NumPy array of pairs of numbers.
//!
//! A uid of 32 hexadecimal digits is two unsigned numbers of 64 bits, its first and its last 16 digits. The array has the
//! type `u8,u8` of NumPy (fields f0 and f1), is sorted and holds each uid once. Read from the resharder and the filter
//! script of mlfoundations/datacomp.

use papertrial_core::{Error, Result};

/// The two numbers of a uid.
fn numbers(uid: &str) -> Result<(u64, u64)> {
    let wrong = || {
        Error::option(
            "datacomp-subset",
            format!(
                "the uid '{uid}' is not 32 hexadecimal digits, which this format needs; turn it off or name another column with --id"
            ),
        )
    };
    if uid.len() != 32 || !uid.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let half = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| wrong());
    Ok((half(&uid[..16])?, half(&uid[16..])?))
}

/// The bytes of the `.npy` file for these uids.
///
/// # Errors
/// [`Error::Option`] for a uid that is not 32 hexadecimal digits.
pub fn subset_file<'a>(uids: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut pairs = uids
        .into_iter()
        .map(numbers)
        .collect::<Result<Vec<(u64, u64)>>>()?;
    pairs.sort_unstable();
    pairs.dedup();
    let mut header = format!(
        "{{'descr': [('f0', '<u8'), ('f1', '<u8')], 'fortran_order': False, 'shape': ({},), }}",
        pairs.len()
    );
    // Magic, version and length take 10 bytes; with the header and its line's end they are a multiple of 64.
    let padded = (10 + header.len() + 1).next_multiple_of(64);
    header.push_str(&" ".repeat(padded - 11 - header.len()));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    for (high, low) in pairs {
        file.extend(high.to_le_bytes());
        file.extend(low.to_le_bytes());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00000000000000010000000000000002";
    const BIG: &str = "Ffffffffffffffff0000000000000000";

    #[test]
    fn the_file_is_sorted_without_repeats_and_padded() {
        let file = subset_file([BIG, ONE, ONE]).unwrap();
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
        assert!(
            header.contains("'shape': (2,)") && header.ends_with('\n'),
            "{header}"
        );
        let numbers: Vec<u64> = file[10 + length..]
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(numbers, [1, 2, u64::MAX, 0]);
    }

    #[test]
    fn other_uids_are_refused_by_name() {
        for uid in [
            "7",
            &ONE[1..],
            "0000000000000001000000000000000g",
            "+000000000000001000000000000000é",
        ] {
            let text = subset_file([ONE, uid]).unwrap_err().to_string();
            assert!(
                text.contains(uid) && text.contains("32 hexadecimal"),
                "{text}"
            );
        }
    }
}
