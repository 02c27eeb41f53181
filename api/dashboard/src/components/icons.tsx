import type { ReactNode } from "react";

function Icon({ children }: { children: ReactNode }) {
  return (
    <svg viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round"
      strokeLinejoin="round" aria-hidden="true">
      {children}
    </svg>
  );
}

export const ArrowIcon = () => <Icon><path d="M2.5 8h11M9.5 4l4 4-4 4" /></Icon>;
export const PlusIcon = () => <Icon><path d="M8 3v10M3 8h10" /></Icon>;
export const SunIcon = () => (
  <Icon><circle cx="8" cy="8" r="3" /><path d="M8 1.2v1.6M8 13.2v1.6M1.2 8h1.6M13.2 8h1.6M3.2 3.2l1.1 1.1M11.7 11.7l1.1 1.1M3.2 12.8l1.1-1.1M11.7 4.3l1.1-1.1" /></Icon>
);
export const MoonIcon = () => <Icon><path d="M13.2 9.8A5.6 5.6 0 0 1 6.2 2.8a5.6 5.6 0 1 0 7 7Z" /></Icon>;
export const KeyIcon = () => <Icon><circle cx="5" cy="11" r="3" /><path d="m7.2 8.8 6-6M11 5l2 2" /></Icon>;
export const PlayIcon = () => <Icon><path d="M5 3.2v9.6L12.5 8Z" fill="currentColor" /></Icon>;
export const PauseIcon = () => <Icon><path d="M5.5 3.5v9M10.5 3.5v9" strokeWidth="2.2" /></Icon>;
export const DownloadIcon = () => <Icon><path d="M8 2v8.5M4.5 7 8 10.5 11.5 7M3 13.5h10" /></Icon>;
export const CopyIcon = () => <Icon><rect x="5.5" y="5.5" width="8" height="8" rx="1.5" /><path d="M10.5 3.2V3a1 1 0 0 0-1-1H3a1 1 0 0 0-1 1v6.5a1 1 0 0 0 1 1h.2" /></Icon>;
export const DiceIcon = () => (
  <Icon>
    <rect x="2.2" y="2.2" width="11.6" height="11.6" rx="2.4" />
    <path d="M5.4 5.4h.01M10.6 5.4h.01M8 8h.01M5.4 10.6h.01M10.6 10.6h.01" strokeWidth="2" />
  </Icon>
);
