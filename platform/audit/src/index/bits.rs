//! A set of the frames of one segment.

/// One bit per frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    rows: u32,
}

impl Bits {
    pub(crate) fn none(rows: u32) -> Self {
        Self { words: vec![0; rows.div_ceil(64) as usize], rows }
    }

    pub(crate) fn all(rows: u32) -> Self {
        let mut bits = Self { words: vec![u64::MAX; rows.div_ceil(64) as usize], rows };
        if let (Some(last), rest @ 1..) = (bits.words.last_mut(), rows % 64) {
            *last = (1 << rest) - 1;
        }
        bits
    }

    /// Rows out of range are left out: they come from a file.
    pub(crate) fn set(&mut self, row: u32) {
        if row < self.rows {
            self.words[(row / 64) as usize] |= 1 << (row % 64);
        }
    }

    pub(crate) fn and(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    pub(crate) fn or(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for index in 0..self.words.len() {
            let mut word = self.words[index];
            while word != 0 {
                let bit = word.trailing_zeros();
                word &= word - 1;
                if !keep(index as u32 * 64 + bit) {
                    self.words[index] &= !(1 << bit);
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The rows, the last one first.
    pub(crate) fn descending(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().rev().flat_map(|(index, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = 63_u32.checked_sub(word.leading_zeros())?;
                word &= !(1 << bit);
                Some(index as u32 * 64 + bit)
            })
        })
    }

    /// Little-endian bytes, as a dense list stands in the file.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.words.iter().flat_map(|word| word.to_le_bytes()).take(self.rows.div_ceil(8) as usize)
    }

    pub(crate) fn from_bytes(bytes: &[u8], rows: u32) -> Self {
        let mut bits = Self::none(rows);
        for (index, byte) in bytes.iter().enumerate().take(rows.div_ceil(8) as usize) {
            bits.words[index / 8] |= u64::from(*byte) << (index % 8 * 8);
        }
        let all = Self::all(rows);
        bits.and(&all);
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_what_they_say() {
        let mut bits = Bits::none(130);
        for row in [0, 63, 64, 129, 130, 500] {
            bits.set(row);
        }
        assert_eq!(bits.descending().collect::<Vec<_>>(), [129, 64, 63, 0]);
        assert_eq!(Bits::from_bytes(&bits.bytes().collect::<Vec<_>>(), 130), bits);
        bits.retain(|row| row != 64);
        bits.and(&Bits::all(130));
        assert_eq!(bits.descending().collect::<Vec<_>>(), [129, 63, 0]);
        assert_eq!(Bits::all(130).descending().count(), 130);
        assert_eq!(Bits::from_bytes(&[0xff; 40], 9).descending().count(), 9);
    }
}
