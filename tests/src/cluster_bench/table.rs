//! The result in a table, with the exponents in the number of routes: 0 is the same for any number, 1 is in proportion.

use super::Costs;
use super::changes::Measured;

/// One line: a value for each size.
struct Line {
    name: &'static str,
    decimals: usize,
    values: Vec<f64>,
    /// Whether its growth is told.
    grows: bool,
}

/// Prints what changes among routes cost, a column for each number of routes.
pub fn print(all: &[(Costs, Measured)]) {
    let line = |name, decimals, grows, value: &dyn Fn(&Costs, &Measured) -> f64| Line {
        name,
        decimals,
        grows,
        values: all.iter().map(|(costs, changes)| value(costs, changes)).collect(),
    };
    let lines = [
        line("all made and served, s", 1, true, &|costs, _| costs.made),
        line("answered write to traffic, ms, 50 %", 0, true, &|_, changes| changes.time.quantile(0.5)),
        line("                             99 %", 0, false, &|_, changes| changes.time.quantile(0.99)),
        line("                              max", 0, false, &|_, changes| changes.time.quantile(1.0)),
        line("begun write to traffic, ms, 50 %", 0, true, &|_, changes| changes.whole.quantile(0.5)),
        line("                          99 %", 0, false, &|_, changes| changes.whole.quantile(0.99)),
        line("                           max", 0, false, &|_, changes| changes.whole.quantile(1.0)),
        line("server CPU per change, ms", 1, true, &|_, changes| changes.server.mean()),
        line("Envoy CPU per change, ms", 1, true, &|_, changes| changes.envoy.mean()),
        line("KB to Envoy per change, 50 %", 1, true, &|_, changes| changes.bytes.quantile(0.5) / 1e3),
        line("server memory, MiB", 0, false, &|costs, _| costs.server),
        line("Envoy memory, MiB", 0, false, &|costs, _| costs.envoy),
        line("wrong answers", 0, false, &|_, changes| changes.faults.wrong as f64),
        line("unexpected 5xx", 0, false, &|_, changes| changes.faults.errors as f64),
    ];
    let sizes: Vec<f64> = all.iter().map(|(costs, _)| f64::from(costs.size)).collect();
    print!("\n{:<36}", "routes in Kubernetes");
    sizes.iter().for_each(|size| print!("{size:>10}"));
    println!("   exponent in their number, from size to size");
    for line in lines {
        print!("{:<36}", line.name);
        line.values.iter().for_each(|value| print!("{value:>10.*}", line.decimals));
        if line.grows {
            print!("  ");
            slopes(&sizes, &line.values).iter().for_each(|slope| print!("{slope:>6.2}"));
        }
        println!();
    }
}

pub fn print_goals() {
    println!(
        "\ngoals at 10,000 routes: answered write to traffic <= 50 ms (50 %) and <= 150 ms (99 %), server CPU <= 10 ms,\n\
         <= 4 KB to Envoy, 0 wrong answers, 0 unexpected 5xx"
    );
}

/// The exponents between neighbours.
fn slopes(sizes: &[f64], values: &[f64]) -> Vec<f64> {
    let points = || sizes.iter().zip(values);
    points().zip(points().skip(1)).map(|((n, a), (m, b))| (b / a).ln() / (m / n).ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_exponents() {
        let found = slopes(&[100.0, 1_000.0, 10_000.0], &[5.0, 5.0, 50.0]);
        assert_eq!(found.len(), 2);
        assert!(found[0].abs() < 1e-9 && (found[1] - 1.0).abs() < 1e-9, "{found:?}");
        assert!(slopes(&[100.0], &[5.0]).is_empty());
    }
}
