# Frames held by mode 2026, whole, cut in two, and never ended.
printf '\033[?2026h\033[2J\033[Hframe one\033[2;1H\033[31mred\033[m\033[?2026l'; step
printf '\033[?2026h\033[2J\033[Hframe two'; printf '\033[2;1Hits second half\033[?2026l'; step
i=1; while [ $i -le 200 ]; do printf '\033[?2026h\033[H\033[Jframe %d\033[3;1H%s\033[?2026l' $i "$i $i $i $i $i"; i=$((i + 1)); done; step
printf '\033[?2026h\033[H\033[Jnever ended'; step
printf '\033[?2026l\033[5;5Hended'; step
printf '\033[?2026h\033[?2026h\033[?2026ltwice begun'; step
i=1; while [ $i -le 300 ]; do printf '\033[2J\033[3J\033[H'; echo "clear and paint $i"; i=$((i + 1)); done; step
