//! What a request counts, as an expression over its tokens: `input + 4*output - 0.9*cached`.
//!
//! Only linear expressions are taken: the filter evaluates five weights on each request and needs no
//! interpreter, and a budget stays a plain sum that people can check.

use tollgate_proto::v1::CountWeights;

use super::redact::Shown;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExpression {
    #[error("the expression ends too early")]
    Unfinished,
    #[error("{} is not expected here", Shown(.0))]
    Unexpected(String),
    #[error("there is no {}", Shown(.0))]
    UnknownName(String),
    #[error("{} is not a number", Shown(.0))]
    Number(String),
    #[error("two token counts are multiplied or divided by each other")]
    NotLinear,
    #[error("division by zero")]
    DivisionByZero,
    #[error("parentheses are nested too deeply")]
    TooDeep,
    #[error("a weight is not a finite number")]
    NotFinite,
}

const MAX_DEPTH: usize = 32;

// === impl InvalidExpression ===

impl InvalidExpression {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotLinear => "multiply and divide token counts by numbers only, for example input + 4*output",
            Self::DivisionByZero | Self::NotFinite => "",
            _ => "numbers, + - * / ( ) and the names input, output, cached, reasoning",
        }
    }
}

/// # Errors
/// When it is no linear expression of the known names.
pub fn parse(text: &str) -> Result<CountWeights, InvalidExpression> {
    let mut parser = Parser { rest: text, depth: 0 };
    let weights = parser.sum()?;
    match parser.next_char() {
        None if terms(&weights).iter().all(|weight| weight.is_finite()) => Ok(weights),
        None => Err(InvalidExpression::NotFinite),
        Some(c) => Err(InvalidExpression::Unexpected(c.to_string())),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

// === impl Parser ===

impl Parser<'_> {
    fn next_char(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, length: usize) -> &str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn sum(&mut self) -> Result<CountWeights, InvalidExpression> {
        let mut left = self.product()?;
        while let Some(sign @ ('+' | '-')) = self.next_char() {
            self.take(1);
            let right = self.product()?;
            left = add(left, scale(right, if sign == '+' { 1.0 } else { -1.0 }));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<CountWeights, InvalidExpression> {
        let mut left = self.factor()?;
        while let Some(operator @ ('*' | '/')) = self.next_char() {
            self.take(1);
            let right = self.factor()?;
            left = match (operator, constant(&left), constant(&right)) {
                ('/', _, Some(0.0)) => return Err(InvalidExpression::DivisionByZero),
                ('/', _, Some(divisor)) => scale(left, divisor.recip()),
                ('*', _, Some(factor)) => scale(left, factor),
                ('*', Some(factor), None) => scale(right, factor),
                _ => return Err(InvalidExpression::NotLinear),
            };
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<CountWeights, InvalidExpression> {
        match self.next_char().ok_or(InvalidExpression::Unfinished)? {
            '(' => self.nested(|parser| {
                let inner = parser.sum()?;
                match parser.next_char() {
                    Some(')') => {
                        parser.take(1);
                        Ok(inner)
                    }
                    Some(c) => Err(InvalidExpression::Unexpected(c.to_string())),
                    None => Err(InvalidExpression::Unfinished),
                }
            }),
            '-' => self.nested(|parser| Ok(scale(parser.factor()?, -1.0))),
            c if c.is_ascii_digit() || c == '.' => {
                let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
                let number = self.take(end);
                let constant = number.parse().map_err(|_| InvalidExpression::Number(number.to_owned()))?;
                Ok(CountWeights { constant, ..CountWeights::default() })
            }
            c if c.is_ascii_alphabetic() => {
                let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
                name(self.take(end))
            }
            c => Err(InvalidExpression::Unexpected(c.to_string())),
        }
    }

    /// Takes one character and goes one level deeper.
    fn nested(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<CountWeights, InvalidExpression>,
    ) -> Result<CountWeights, InvalidExpression> {
        self.take(1);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(InvalidExpression::TooDeep);
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }
}

fn name(name: &str) -> Result<CountWeights, InvalidExpression> {
    let none = CountWeights::default();
    match name {
        "input" => Ok(CountWeights { input: 1.0, ..none }),
        "output" => Ok(CountWeights { output: 1.0, ..none }),
        "cached" => Ok(CountWeights { cached: 1.0, ..none }),
        "reasoning" => Ok(CountWeights { reasoning: 1.0, ..none }),
        _ => Err(InvalidExpression::UnknownName(name.to_owned())),
    }
}

fn constant(weights: &CountWeights) -> Option<f64> {
    let CountWeights { constant, input, output, cached, reasoning } = *weights;
    [input, output, cached, reasoning].iter().all(|weight| *weight == 0.0).then_some(constant)
}

fn terms(weights: &CountWeights) -> [f64; 5] {
    [weights.constant, weights.input, weights.output, weights.cached, weights.reasoning]
}

fn scale(weights: CountWeights, factor: f64) -> CountWeights {
    CountWeights {
        constant: weights.constant * factor,
        input: weights.input * factor,
        output: weights.output * factor,
        cached: weights.cached * factor,
        reasoning: weights.reasoning * factor,
    }
}

fn add(a: CountWeights, b: CountWeights) -> CountWeights {
    CountWeights {
        constant: a.constant + b.constant,
        input: a.input + b.input,
        output: a.output + b.output,
        cached: a.cached + b.cached,
        reasoning: a.reasoning + b.reasoning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(text: &str) -> [f64; 5] {
        terms(&parse(text).unwrap())
    }

    #[test]
    fn linear_expressions() {
        assert_eq!(weights("input + 4*output - 0.9*cached"), [0.0, 1.0, 4.0, -0.9, 0.0]);
        assert_eq!(weights("(input+output)/2 + 10"), [10.0, 0.5, 0.5, 0.0, 0.0]);
        assert_eq!(weights("-(2*3)*reasoning - -input"), [0.0, 1.0, 0.0, 0.0, -6.0]);
        assert_eq!(weights("0*input*output"), [0.0; 5]);
    }

    #[test]
    fn refused() {
        use InvalidExpression as E;
        assert_eq!(parse("input*output"), Err(E::NotLinear));
        assert_eq!(parse("1/input"), Err(E::NotLinear));
        assert_eq!(parse("input/0"), Err(E::DivisionByZero));
        assert_eq!(parse("tokens"), Err(E::UnknownName("tokens".into())));
        assert_eq!(parse("input +"), Err(E::Unfinished));
        assert_eq!(parse("input output"), Err(E::Unexpected("o".into())));
        assert_eq!(parse("1.2.3"), Err(E::Number("1.2.3".into())));
        assert_eq!(parse(&"(".repeat(100_000)), Err(E::TooDeep));
        assert_eq!(parse(&"-".repeat(100_000)), Err(E::TooDeep));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+*/() .0-9a-zäö]{0,40}") {
            let _ = parse(&text);
        }
    }
}
