//! The few operations of Python's pickle format (protocol 2) that a state dictionary takes.

/// A pickle that is being written.
#[derive(Debug)]
pub struct Pickle(Vec<u8>);

impl Pickle {
    /// Begins one.
    pub fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    /// Ends it.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }

    /// A dictionary, filled by `items` with keys and values in turn.
    pub fn dictionary(&mut self, items: impl FnOnce(&mut Pickle)) {
        self.0.extend(b"}(");
        items(self);
        self.0.push(b'u');
    }

    /// A tuple.
    pub fn tuple(&mut self, items: impl FnOnce(&mut Pickle)) {
        self.0.push(b'(');
        items(self);
        self.0.push(b't');
    }

    /// What a function or class returns for a tuple of arguments.
    pub fn call(&mut self, module: &str, name: &str, arguments: impl FnOnce(&mut Pickle)) {
        self.global(module, name);
        self.tuple(arguments);
        self.0.push(b'R');
    }

    /// A class or function by its name.
    pub fn global(&mut self, module: &str, name: &str) {
        self.0.push(b'c');
        self.0.extend(format!("{module}\n{name}\n").bytes());
    }

    /// Something that lies outside of the pickle, by what describes it.
    pub fn persistent(&mut self, description: impl FnOnce(&mut Pickle)) {
        description(self);
        self.0.push(b'Q');
    }

    /// Text.
    pub fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("names are shorter than 4 GiB");
        self.0.push(b'X');
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.bytes());
    }

    /// A number from 0 on.
    pub fn number(&mut self, number: usize) {
        match i32::try_from(number) {
            Ok(number) => {
                self.0.push(b'J');
                self.0.extend(number.to_le_bytes());
            }
            // Nine bytes, so that the highest bit is no sign.
            Err(_) => {
                self.0.extend([0x8a, 9]);
                self.0.extend((number as u64).to_le_bytes());
                self.0.push(0);
            }
        }
    }

    /// `False`.
    pub fn no(&mut self) {
        self.0.push(0x89);
    }
}
