/** Noise, half-formed, image: three steps. */
export function Logo() {
  const noise = ["0 0", "8 0", "4 4", "12 4", "0 8", "8 12", "12 12", "0 12"];
  const half = ["20 0", "24 0", "20 4", "28 4", "24 8", "20 8", "24 12", "32 8", "32 12", "28 12"];
  const square = (at: string) => {
    const [x, y] = at.split(" ");
    return <rect key={at} x={x} y={y} width="4" height="4" />;
  };
  return (
    <svg viewBox="0 0 56 16" aria-hidden="true">
      <g fill="var(--teacher)">{noise.map(square)}</g>
      <g fill="var(--student)" opacity="0.75">{half.map(square)}</g>
      <rect x="40" y="0" width="16" height="16" fill="var(--student)" />
    </svg>
  );
}
