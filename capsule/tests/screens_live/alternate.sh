# The two screens and their cursors.
i=1; while [ $i -le 30 ]; do echo "main line $i"; i=$((i + 1)); done; printf '\033[1;35mbold magenta '; step
printf '\033[?1049h\033[H\033[32mother\033[5;5Hscreen'; step
printf '\033[?25l\033[10;10Hno cursor'; step
printf '\033[?25h\033[?1049l'; step
printf 'still bold magenta\033[m plain'; step
printf '\0337\033[3;3H\033[4;31mmarked'; step
printf '\0338restored'; step
printf '\033[?47h\033[6;6Hold way'; step
printf '\033[?47l'; step
printf '\033[?1049h\033[2J\033[H'; i=1; while [ $i -le 60 ]; do echo "other line $i"; i=$((i + 1)); done; step
printf '\033[?1049l\r\nback'; step
printf '\033[?1h\033=\033[?2004h\033[?1000h\033[?1006h modes'; step
printf '\033c after RIS'; step
