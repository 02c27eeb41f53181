/** Exponential moving average without the pull towards the first value; `amount` in [0, 1), 0 leaves all as it is. */
export function smooth(values: (number | null)[], amount: number): (number | null)[] {
  if (amount === 0) return values;
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    mean = amount * mean + (1 - amount) * value;
    weight = amount * weight + (1 - amount);
    return mean / weight;
  });
}
