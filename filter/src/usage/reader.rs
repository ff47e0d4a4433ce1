//! A reader of JSON that takes bytes in any pieces and keeps no copy of them. It looks for usage at the places where
//! vendors put it, and counts the text. Everything else is skipped. Answers and the data of events go through the same
//! machine.
//!
//! It is lenient where [`crate::json`] is strict, because a backend's answer is only read here and not judged. Its
//! memory is fixed, whatever the size of the answer: a stack of places and the last key.

use super::{
    figures::Figures,
    names::{Name, UsageName},
    tally::Tally,
};
use crate::json;

/// The most levels of nesting. An answer that is deeper is not read further, and so it is estimated.
const MAX_DEPTH: usize = 128;

/// The most bytes of a key or number that is kept. The longest known name has 27, so a longer key is unknown.
const MAX_TOKEN: usize = 32;

/// The state machine. `place` and `name` say what the next value is.
#[derive(Debug)]
pub struct Reader {
    state: State,
    place: Place,
    name: Name,
    usage_name: Option<UsageName>,
    /// The places around the present one.
    around: [Place; MAX_DEPTH],
    depth: usize,
    token: Token,
    document: Document,
    form: Form,
}

/// One JSON text: an answer, the data of an event, or an element of an array of answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Document {
    pub figures: Figures,
    /// There was an object of usage, whatever stood in it.
    pub has_usage: bool,
    /// That object was in Anthropic's `message`, so the answer only begins.
    pub begins: bool,
    pub choices: Choices,
    pub kind: Kind,
    /// The bytes of strings: under a known name of text, under `delta`, and anywhere.
    text: u64,
    delta: u64,
    strings: u64,
    is_open: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choices {
    #[default]
    Absent,
    Empty,
    Some,
}

/// What an event calls itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// It is of no known API, so all of its strings may be text.
    #[default]
    Foreign,
    Known,
    /// `response.output_text.delta` and its like. Text comes as `delta`, and once more in other events.
    Dotted,
    /// The last event of an answer.
    Last,
    /// The last event of an answer in the Responses API.
    DottedLast,
}

/// How the documents of a text hang together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    One,
    /// The text is one array of answers: a stream of Gemini's.
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeName,
    BeforeValue,
    InName,
    InText,
    /// The next byte follows a backslash.
    EscapeInName,
    EscapeInText,
    InScalar,
    /// The text is nested too deep, and nothing more is read.
    Lost,
}

/// Whether a byte has been dealt with.
enum Taken {
    Yes,
    No,
}

/// Where the reader is: the object or array around the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of everything.
    Top,
    /// Inside the array that a whole answer may be.
    Answers,
    Answer,
    Response,
    Message,
    Usage,
    /// An object that holds parts of figures.
    Details,
    Choices,
    Object,
    Array,
}

/// A name or a number that has to be kept until it is whole.
#[derive(Debug, Clone, Copy)]
struct Token {
    bytes: [u8; MAX_TOKEN],
    len: usize,
}

// === impl Reader ===

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::BeforeValue,
            place: Place::Top,
            name: Name::Unknown,
            usage_name: None,
            around: [Place::Top; MAX_DEPTH],
            depth: 0,
            token: Token { bytes: [0; MAX_TOKEN], len: 0 },
            document: Document::default(),
            form: Form::One,
        }
    }
}

impl Reader {
    /// Reads on. Each document that ends goes into the tally.
    pub fn feed(&mut self, bytes: &[u8], tally: &mut Tally) {
        let mut rest = bytes;
        while let Some((byte, behind)) = rest.split_first() {
            rest = match self.state {
                // Vectors are long, and no number in an array means anything.
                State::BeforeValue if self.place == Place::Array && !opens_or_closes(*byte) => {
                    let end = rest.iter().position(|byte| opens_or_closes(*byte)).unwrap_or(rest.len());
                    rest.get(end..).unwrap_or_default()
                }
                State::BeforeName | State::BeforeValue => match self.between(*byte, tally) {
                    Taken::Yes => behind,
                    Taken::No => rest,
                },
                State::InName => self.name(rest),
                State::InText => self.text(rest),
                State::InScalar => self.scalar(rest, tally),
                State::EscapeInName => {
                    // No vendor writes a known name so. The backslash stays in the token, and no known name has one.
                    self.token.push(b"\\");
                    self.state = State::InName;
                    behind
                }
                State::EscapeInText => {
                    self.document.shows(self.name, 1);
                    self.state = State::InText;
                    behind
                }
                State::Lost => {
                    self.document.shows(Name::Text, rest.len());
                    &[]
                }
            };
        }
    }

    /// Nothing follows. What is open counts as far as it came. The reader then is as new.
    pub fn finish(&mut self, tally: &mut Tally) {
        if self.state == State::InScalar {
            self.scalar_ends(tally);
        }
        self.document_ends(tally);
        (self.state, self.place, self.name, self.depth) = (State::BeforeValue, Place::Top, Name::Unknown, 0);
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// Takes a byte between names and values. It is left if a number or a word begins with it.
    fn between(&mut self, byte: u8, tally: &mut Tally) -> Taken {
        match byte {
            b'"' => {
                self.token.len = 0;
                self.state = if self.state == State::BeforeName { State::InName } else { State::InText };
            }
            b':' => self.state = State::BeforeValue,
            b',' if self.place.is_object() => self.state = State::BeforeName,
            b'{' => {
                let place = self.object();
                self.opens(place, State::BeforeName);
            }
            b'[' => {
                let place = self.array();
                self.opens(place, State::BeforeValue);
            }
            b'}' | b']' => self.closes(tally),
            // Else a scalar would begin with what ends it, and the reader would not come on.
            _ if ends_scalar(byte) => {}
            _ => {
                self.token.len = 0;
                self.state = State::InScalar;
                self.choice();
                return Taken::No;
            }
        }
        Taken::Yes
    }

    /// Reads on in a name. Returns what is behind the part that was read.
    fn name<'b>(&mut self, rest: &'b [u8]) -> &'b [u8] {
        let (inner, stop, behind) = until_stop(rest);
        match stop {
            Some(b'"') if self.token.len == 0 => self.name_ends(inner),
            Some(b'"') => {
                self.token.push(inner);
                let token = self.token;
                self.name_ends(token.whole());
            }
            Some(b'\\') => self.state = State::EscapeInName,
            _ => self.token.push(inner),
        }
        behind
    }

    /// Reads on in a text. Returns what is behind the part that was read.
    fn text<'b>(&mut self, rest: &'b [u8]) -> &'b [u8] {
        let (inner, stop, behind) = until_stop(rest);
        self.document.shows(self.name, inner.len());
        let is_type = self.name == Name::Type && self.place == Place::Answer;
        if is_type {
            self.token.push(inner);
        }
        match stop {
            Some(b'"') => {
                self.state = State::BeforeValue;
                if is_type {
                    self.document.kind = Kind::of(self.token.beginning());
                }
            }
            Some(b'\\') => self.state = State::EscapeInText,
            _ => {}
        }
        behind
    }

    /// Reads on in a number or a word. Returns what ends it, and all behind that.
    fn scalar<'b>(&mut self, rest: &'b [u8], tally: &mut Tally) -> &'b [u8] {
        let end = rest.iter().position(|byte| ends_scalar(*byte)).unwrap_or(rest.len());
        let (inner, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        if self.place.reads_scalars() {
            self.token.push(inner);
        }
        if !behind.is_empty() {
            self.scalar_ends(tally);
        }
        behind
    }

    fn name_ends(&mut self, key: &[u8]) {
        self.state = State::BeforeValue;
        let figure = match self.place {
            Place::Usage => {
                self.usage_name = UsageName::of(key);
                match self.usage_name {
                    Some(UsageName::Figure(figure)) => Some(figure),
                    _ => None,
                }
            }
            Place::Details => {
                let figure = UsageName::of_detail(key);
                self.usage_name = figure.map(UsageName::Figure);
                figure
            }
            place => {
                self.name = Name::of(key);
                if place == Place::Answer && self.name.is_known() && self.document.kind == Kind::Foreign {
                    self.document.kind = Kind::Known;
                }
                None
            }
        };
        if let Some(figure) = figure {
            // Of two the last counts, also where it is no number.
            self.document.figures.forget(figure);
        }
    }

    fn scalar_ends(&mut self, tally: &mut Tally) {
        self.state = State::BeforeValue;
        match (self.place, self.name, self.usage_name) {
            (Place::Usage | Place::Details, _, Some(UsageName::Figure(figure))) => {
                self.document.figures.say(figure, self.token.whole());
            }
            (Place::Answer | Place::Response | Place::Message, Name::Usage, _) => self.document.forget_usage(),
            (Place::Top | Place::Answers, ..) => tally.add_other(self.token.whole()),
            _ => {}
        }
    }

    fn object(&mut self) -> Place {
        match (self.place, self.name) {
            (Place::Top | Place::Answers, _) => {
                self.document = Document { is_open: true, ..Document::default() };
                Place::Answer
            }
            (Place::Answer, Name::Response) => Place::Response,
            (Place::Answer, Name::Message) => Place::Message,
            (Place::Answer | Place::Response | Place::Message, Name::Usage) => {
                self.document.forget_usage();
                self.document.has_usage = true;
                self.document.begins = self.place == Place::Message;
                self.usage_name = None;
                Place::Usage
            }
            (Place::Usage, _) if self.usage_name == Some(UsageName::Details) => Place::Details,
            _ => Place::Object,
        }
    }

    fn array(&mut self) -> Place {
        match (self.place, self.name) {
            (Place::Top, _) => {
                self.form = Form::Array;
                Place::Answers
            }
            (Place::Answer, Name::Choices) => {
                self.document.choices = Choices::Empty;
                Place::Choices
            }
            _ => Place::Array,
        }
    }

    /// A value begins. If it stands among the choices, there is a choice.
    fn choice(&mut self) {
        if self.place == Place::Choices {
            self.document.choices = Choices::Some;
        }
    }

    fn opens(&mut self, place: Place, state: State) {
        self.choice();
        let Some(slot) = self.around.get_mut(self.depth) else {
            self.state = State::Lost;
            return;
        };
        *slot = self.place;
        self.depth += 1;
        (self.place, self.state, self.name) = (place, state, Name::Unknown);
    }

    fn closes(&mut self, tally: &mut Tally) {
        if self.place == Place::Answer {
            self.document_ends(tally);
        }
        self.depth = self.depth.saturating_sub(1);
        self.place = self.around.get(self.depth).copied().unwrap_or(Place::Top);
        (self.state, self.name) = (State::BeforeValue, Name::Unknown);
    }

    fn document_ends(&mut self, tally: &mut Tally) {
        if std::mem::take(&mut self.document.is_open) {
            tally.add(&self.document);
        }
    }
}

/// The plain beginning of a string, the byte that ends it, and what is behind that. A control character ends the plain
/// part but not the string, and it counts for nothing.
fn until_stop(rest: &[u8]) -> (&[u8], Option<u8>, &[u8]) {
    let (inner, behind) = rest.split_at_checked(json::plain_length(rest)).unwrap_or((rest, &[]));
    match behind.split_first() {
        Some((stop, behind)) => (inner, Some(*stop), behind),
        None => (inner, None, behind),
    }
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b',' | b'}' | b']')
}

fn opens_or_closes(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')
}

// === impl Document ===

impl Document {
    /// How many bytes the client is given to read.
    pub fn text(&self) -> u64 {
        let named = self.text + self.delta;
        match self.kind {
            Kind::Dotted | Kind::DottedLast => self.delta,
            Kind::Foreign if named == 0 => self.strings,
            Kind::Foreign | Kind::Known | Kind::Last => named,
        }
    }

    fn shows(&mut self, name: Name, bytes: usize) {
        let bytes = bytes as u64;
        match name {
            Name::Text => self.text += bytes,
            Name::Delta => self.delta += bytes,
            Name::Blob => {}
            _ => self.strings += bytes,
        }
    }

    fn forget_usage(&mut self) {
        self.figures = Figures::default();
        self.has_usage = false;
    }
}

// === impl Kind ===

impl Kind {
    fn of(kind: &[u8]) -> Self {
        match kind {
            b"message_stop" => Self::Last,
            b"response.completed" | b"response.incomplete" | b"response.failed" | b"transcript.text.done" => {
                Self::DottedLast
            }
            kind if kind.contains(&b'.') => Self::Dotted,
            _ => Self::Known,
        }
    }

    /// Whether it is the last event of its answer.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Last | Self::DottedLast)
    }
}

// === impl Place ===

impl Place {
    /// Whether numbers and words in it mean something.
    fn reads_scalars(self) -> bool {
        matches!(self, Self::Usage | Self::Details | Self::Top | Self::Answers)
    }

    fn is_object(self) -> bool {
        !matches!(self, Self::Top | Self::Answers | Self::Choices | Self::Array)
    }
}

// === impl Token ===

impl Token {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = *byte;
            }
            self.len = self.len.saturating_add(1);
        }
    }

    /// All of it. Empty: it is too long to be known.
    fn whole(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn beginning(&self) -> &[u8] {
        self.bytes.get(..self.len.min(MAX_TOKEN)).unwrap_or_default()
    }
}
