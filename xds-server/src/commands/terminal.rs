//! What is printed for people: tables, and names that do nothing to a terminal.

/// How the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Lines of cells as a table, with columns as wide as their widest cell.
pub fn table<const N: usize>(lines: &[[String; N]], sides: [Side; N]) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).zip(sides).map(|((cell, width), side)| match side {
            Side::Left => format!("{cell:<width$}"),
            Side::Right => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A name that somebody else made up, with all escaped that a terminal acts on or that misleads the eye: control
/// characters, characters that turn the direction of text, and invisible ones.
pub fn inert(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '"' | '\'' => text.push(character),
            other => text.extend(other.escape_debug()),
        }
    }
    text
}

/// JSON leaves some control characters as they are. Escaped, they are the same text.
pub fn inert_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' => text.push('\n'),
            control if control.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text
}
