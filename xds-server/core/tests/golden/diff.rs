//! A small line diff: enough to see what a change does to a golden case.

/// Changed lines with two lines around them.
pub fn lines(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut output = String::new();
    let mut line = |sign: char, number: usize, text: &str| output.push_str(&format!("{sign}{number:>5} {text}\n"));
    for (index, text) in old.iter().enumerate().take(head).skip(head.saturating_sub(2)) {
        line(' ', index + 1, text);
    }
    for (sign, a, b) in steps(old_middle, new_middle) {
        match sign {
            '-' => line('-', head + a + 1, old_middle[a]),
            '+' => line('+', head + b + 1, new_middle[b]),
            _ => line(' ', head + b + 1, new_middle[b]),
        }
    }
    for (index, text) in new.iter().enumerate().skip(new.len() - tail).take(2) {
        line(' ', index + 1, text);
    }
    output
}

/// The longest common subsequence, as signs and positions in both.
fn steps(old: &[&str], new: &[&str]) -> Vec<(char, usize, usize)> {
    let mut table = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            table[a][b] = if old[a] == new[b] { table[a + 1][b + 1] + 1 } else { table[a + 1][b].max(table[a][b + 1]) };
        }
    }
    let (mut a, mut b, mut steps) = (0, 0, Vec::new());
    while a < old.len() || b < new.len() {
        if a < old.len() && b < new.len() && old[a] == new[b] {
            steps.push((' ', a, b));
            (a, b) = (a + 1, b + 1);
        } else if b == new.len() || (a < old.len() && table[a + 1][b] >= table[a][b + 1]) {
            steps.push(('-', a, b));
            a += 1;
        } else {
            steps.push(('+', a, b));
            b += 1;
        }
    }
    steps
}
