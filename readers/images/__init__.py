"""Images: photographs, figures, micrographs, scans, sky surveys and maps, whole or cut into tiles."""
